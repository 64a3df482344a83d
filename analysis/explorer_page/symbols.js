// Colours and markers of rows, and the legend that explains them. A class has the same colour and marker as in the
// pictures of `analyze`; values are shades of cividis, which suits every kind of colour vision.

const SHAPES = {
  circle: "M8 3.2a4.8 4.8 0 1 0 .01 0z",
  triangle: "M8 2.5l5.6 10H2.4z",
  square: "M3.6 3.6h8.8v8.8H3.6z",
  plus: "M6.2 2.4h3.6v3.8h3.8v3.6H9.8v3.8H6.2V9.8H2.4V6.2h3.8z",
  diamond: "M8 1.8L13 8l-5 6.2L3 8z",
  inverted_triangle: "M8 13.5l5.6-10H2.4z",
  star: "M8 1.6l1.7 4.6h4.7l-3.8 2.9 1.4 4.7L8 11l-4 2.8 1.4-4.7L1.6 6.2h4.7z",
  square_pin: "M3 3Q8 5.2 13 3Q10.8 8 13 13Q8 10.8 3 13Q5.2 8 3 3z",
  triangle_pin: "M8 1.6Q8.6 7.6 14 12.4Q8 10.4 2 12.4Q7.4 7.6 8 1.6z",
};
// Each is used with every colour before the next one, so neighbours here distinguish classes of one colour.
const MARKERS = ["circle", "triangle", "plus", "diamond", "square", "star", "inverted_triangle"];
const OWN = page.palette.length * MARKERS.length; // classes with their own look
// Neither a class nor a value. To some people this grey looks like the palette's pink, so no class shares its markers.
const NONE = { light: "#8a8f98", dark: "#7d838d" };
const [MISSING, OTHERS] = ["triangle_pin", "square_pin"];

function paletteOf(theme) {
  return page.palette.map((colour) => (theme === "dark" && colour === "#000000" ? "#FFFFFF" : colour));
}

// {group: entry of each row, entries: [{name, colour, marker, count}]} of texts;
// {group: null, scale: {low, high, colours}} of numbers; with fill and marker of each row in both.
function colouring(column, rows, theme) {
  return column === null || column.kind === "text" ? classes(column, rows, theme) : values(column, rows, theme);
}

function classes(column, rows, theme) {
  const names = column === null ? [] : column.names;
  const counts = new Int32Array(names.length);
  let without = 0;
  for (let row = 0; row < rows; row++) {
    const code = column === null ? -1 : column.codes[row];
    if (code < 0) without++;
    else counts[code]++;
  }
  const order = Array.from(names.keys());
  const kept = new Set(order.toSorted((a, b) => counts[b] - counts[a]).slice(0, OWN));
  const colours = paletteOf(theme);
  const entries = [];
  const entryOf = new Int32Array(names.length);
  for (const code of order.filter((code) => kept.has(code))) {
    entryOf[code] = entries.length;
    const number = entries.length;
    entries.push({
      name: names[code], count: counts[code], colour: colours[number % colours.length],
      marker: MARKERS[Math.floor(number / colours.length)],
    });
  }
  const rest = order.filter((code) => !kept.has(code));
  for (const code of rest) entryOf[code] = entries.length;
  if (rest.length > 0) {
    const count = rest.reduce((sum, code) => sum + counts[code], 0);
    entries.push({ name: `${rest.length} others`, count, colour: NONE[theme], marker: OTHERS });
  }
  if (without > 0) entries.push({ name: NOTHING, count: without, colour: NONE[theme], marker: MISSING });
  const group = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    const code = column === null ? -1 : column.codes[row];
    group[row] = code < 0 ? entries.length - 1 : entryOf[code];
  }
  return {
    group, entries, scale: null,
    fill: Array.from(group, (entry) => entries[entry].colour),
    marker: Array.from(group, (entry) => entries[entry].marker),
  };
}

function values(column, rows, theme) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of column.values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  // The darkest shades of the map are invisible on a dark page.
  const colours = theme === "dark" ? page.cividis.slice(72) : page.cividis.slice(0, 244);
  const step = high > low ? (colours.length - 1) / (high - low) : 0;
  const fill = Array.from(column.values, (value) =>
    Number.isFinite(value) ? colours[Math.round((value - low) * step)] : NONE[theme]);
  const marker = Array.from(column.values, (value) => (Number.isFinite(value) ? "circle" : MISSING));
  return { group: null, entries: [], scale: { low, high, colours }, fill, marker };
}

function symbol(marker, colour) {
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  picture.setAttribute("viewBox", "0 0 16 16");
  picture.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", SHAPES[marker]);
  path.setAttribute("fill", colour);
  picture.append(path);
  return picture;
}

// Buttons that isolate a class (or several), or a bar of shades with its ends.
function drawLegend(place, colours, isolated, toggle) {
  place.replaceChildren();
  if (colours.scale !== null) {
    const { low, high, colours: shades } = colours.scale;
    if (low > high) {
      place.append(element("p", "no values"));
      return;
    }
    const bar = element("div", "", "shades");
    const stops = shades.filter((_, i) => i % 12 === 0 || i === shades.length - 1);
    bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    const ends = element("div", "", "ends");
    ends.append(...[low, high].map((end) => element("span", String(Number(end.toPrecision(3))))));
    place.append(bar, ends);
    return;
  }
  const list = element("ul");
  colours.entries.forEach((entry, number) => {
    if (entry.count === 0) return; // its colour stays reserved, because other columns have it
    const button = element("button");
    button.type = "button";
    button.dataset.entry = number;
    button.setAttribute("aria-pressed", String(isolated.has(number)));
    button.title = `Show only ${entry.name}, or with other pressed ones`;
    button.append(symbol(entry.marker, entry.colour), element("bdi", entry.name, "name"));
    button.append(element("span", entry.count.toLocaleString("en"), "number"));
    button.addEventListener("click", () => toggle(number));
    const item = element("li");
    item.append(button);
    list.append(item);
  });
  place.append(list);
}
