// The page: its settings (`state`), and the functions that put them on the screen.

const $ = (id) => document.getElementById(id);
const FILTERS = ["label", "speaker", "language", "correct"];
const NO_VALUE = "none"; // the choice of rows without a value; that of a name is "=" and the name

const state = {
  embedding: page.embeddings[0], colouring: null, isolated: new Set(), mask: new Uint8Array(0), chosen: -1,
  selected: [], theme: "light",
};

const scatter = new Scatter($("plot"), { hover, choose, select });

function options(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => {
    const option = element("option", text);
    option.value = value;
    return option;
  }));
}

function keep(select, choices) {
  const before = select.value;
  options(select, choices);
  if (choices.some(([value]) => value === before)) select.value = before;
}

function showEmbedding() {
  const id = state.chosen < 0 ? null : shown(state.embedding, "id", state.chosen);
  const embedding = (state.embedding = page.embeddings[$("embedding").selectedIndex]);
  keep($("projection"), projectionsOf(embedding).map((name) => [name, TITLES[name] ?? name]));
  const colours = COLOURS.filter((name) => has(embedding, name));
  keep($("colour"), colours.map((name) => [name, titleOf(embedding, name)]));
  for (const name of FILTERS) {
    const column = columnOf(embedding, name);
    const there = new Set(column?.codes);
    const choices = column === null ? [] : column.names.filter((_, code) => there.has(code)).map((text) => [`=${text}`, text]);
    if (there.has(-1)) choices.push([NO_VALUE, NOTHING]);
    keep($(`filter-${name}`), [["", "all"], ...choices]);
    $(`filter-${name}`).closest("label").hidden = choices.length < 2;
  }
  const parts = [embedding.name, `${embedding.rows.toLocaleString("en")} rows`, `${embedding.dim} dimensions`, embedding.store];
  $("about").textContent = parts.filter((part) => part !== "").join(" · ");
  drawNotes(embedding);
  scatter.select([]);
  state.isolated.clear();
  showProjection();
  showColours();
  const column = columnOf(embedding, "id");
  choose(id === null ? -1 : column.codes.indexOf(column.names.indexOf(id)), false);
}

function showProjection() {
  const { embedding } = state;
  const name = $("projection").value;
  const explained = name === "pca" ? embedding.explained : [];
  const titles = [0, 1].map((i) => {
    const share = explained[i] === undefined ? "" : ` (${(100 * explained[i]).toFixed(1)} % of the variance)`;
    return `${TITLES[name] ?? name} ${i + 1}${share}`;
  });
  scatter.move(columnOf(embedding, `${name}_x`).values, columnOf(embedding, `${name}_y`).values, titles);
  $("plot").setAttribute("aria-label", `Scatter plot, ${TITLES[name] ?? name} of ${embedding.name}`);
}

function showColours() {
  const column = columnOf(state.embedding, $("colour").value);
  state.colouring = colouring(column, state.embedding.rows, state.theme);
  scatter.paint(state.colouring.fill, state.colouring.marker);
  showFiltered();
}

function isolate(entry) {
  if (!state.isolated.delete(entry)) state.isolated.add(entry);
  showFiltered();
  $("legend").querySelector(`[data-entry="${entry}"]`).focus();
}

function showFiltered() {
  const { embedding, isolated, colouring: { group } } = state;
  const mask = (state.mask = new Uint8Array(embedding.rows).fill(1));
  for (const name of FILTERS) {
    const wanted = $(`filter-${name}`).value;
    if (wanted === "") continue;
    const { names, codes } = columnOf(embedding, name);
    const code = wanted === NO_VALUE ? -1 : names.indexOf(wanted.slice(1));
    for (let row = 0; row < mask.length; row++) mask[row] &= codes[row] === code;
  }
  const words = $("search").value.trim().toLowerCase();
  for (let row = 0; words !== "" && row < mask.length; row++) {
    if (!mask[row]) continue;
    const texts = [shown(embedding, "id", row), shown(embedding, "text", row)];
    mask[row] = texts.some((text) => text?.toLowerCase().includes(words));
  }
  for (let row = 0; isolated.size > 0 && row < mask.length; row++) mask[row] &= isolated.has(group[row]);
  const rows = Int32Array.from(mask.keys());
  const visible = rows.filter((row) => mask[row]);
  scatter.show(visible, $("ghosts").checked ? rows.filter((row) => !mask[row]) : []);
  const selected = state.selected.filter((row) => mask[row]);
  if (selected.length < state.selected.length) scatter.select(selected);
  $("count").textContent = `${visible.length.toLocaleString("en")} of ${mask.length.toLocaleString("en")} rows shown`;
  hover(-1, 0, 0);
  drawLegend($("legend"), state.colouring, isolated, isolate);
  showChosen();
}

function showChosen() {
  const { embedding, chosen, mask } = state;
  drawDetails(embedding, chosen);
  drawNeighbours(embedding, chosen, (row) => mask[row], choose);
  scatter.mark(chosen, chosen < 0 ? [] : neighboursOf(embedding, chosen));
}

function choose(row, play = true) {
  state.chosen = row;
  showChosen();
  const sound = row < 0 ? null : soundOf(state.embedding, row);
  const player = $("player");
  player.hidden = $("autoplay-row").hidden = sound === null;
  $("sound").textContent = row >= 0 && sound === null && page.audio !== "none" ? "no recording" : "";
  if (sound === null) {
    player.removeAttribute("src");
    player.load(); // stops the current recording
  } else if (player.getAttribute("src") !== sound) player.src = sound;
  if (sound !== null && play && $("autoplay").checked) start();
}

// The part of its file that a row plays, in seconds; all of it, if the address names none.
function spanOf(player) {
  const [, start, end] = /#t=([\d.]+)(?:,([\d.]+))?$/.exec(player.getAttribute("src") ?? "") ?? [];
  return { start: Number(start ?? 0), end: Number(end ?? Infinity) };
}

function stopAtEnd() {
  const player = $("player");
  const { start, end } = spanOf(player);
  if (player.currentTime < end) return;
  player.pause();
  player.currentTime = start;
}

function start() {
  const player = $("player");
  if (!player.hasAttribute("src")) return;
  player.currentTime = spanOf(player).start;
  player.play().catch((reason) => {
    // another row was chosen before this one began
    if (reason.name !== "AbortError") $("sound").textContent = `cannot be played: ${reason.message}`;
  });
}

function select(rows) {
  state.selected = rows;
  drawSelection(state.embedding, rows, choose);
}

function hover(row, x, y) {
  drawTooltip($("tooltip"), state.embedding, row, x, y, $("colour").value);
}

function clearFilters() {
  for (const name of FILTERS) $(`filter-${name}`).value = "";
  $("search").value = "";
  state.isolated.clear();
  showFiltered();
}

// Arrow keys step through the rows shown, in the order of the store.
function step(event) {
  if (event.composedPath().some((node) => node.classList?.contains("bk-Toolbar"))) return;
  const rows = scatter.visible;
  const ends = { Home: 0, End: rows.length - 1 };
  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  if (event.key === "Enter" || event.key === " ") start();
  else if (event.key === "Escape") choose(-1);
  else if (rows.length > 0 && event.key in ends) choose(rows[ends[event.key]]);
  else if (rows.length > 0 && event.key in moves) {
    const place = rows.indexOf(state.chosen);
    const next = place < 0 ? (moves[event.key] > 0 ? 0 : rows.length - 1) : place + moves[event.key];
    choose(rows[(next + rows.length) % rows.length]);
  } else return;
  event.preventDefault();
}

function setTheme(theme) {
  state.theme = theme;
  document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", String(theme === "dark"));
  scatter.style(theme);
}

const system = matchMedia("(prefers-color-scheme: dark)");
options($("embedding"), page.embeddings.map(({ name }) => [name, name]));
$("embedding-row").hidden = page.embeddings.length < 2;
$("embedding").addEventListener("change", showEmbedding);
$("projection").addEventListener("change", () => {
  showProjection();
  showColours();
});
$("colour").addEventListener("change", () => {
  state.isolated.clear();
  showColours();
});
for (const name of FILTERS) $(`filter-${name}`).addEventListener("change", showFiltered);
$("search").addEventListener("input", showFiltered);
$("ghosts").addEventListener("change", showFiltered);
$("clear").addEventListener("click", clearFilters);
$("controls").addEventListener("submit", (event) => event.preventDefault());
$("plot").addEventListener("keydown", step);
$("player").addEventListener("timeupdate", stopAtEnd);
$("download").addEventListener("click", () => downloadIds(state.embedding, state.selected));
$("list").addEventListener("click", () => scatter.select(Array.from(scatter.visible)));
$("unselect").addEventListener("click", () => {
  scatter.select([]);
  $("plot").focus();
});
for (const [place, event, dark] of [[$("theme"), "click", () => state.theme === "light"], [system, "change", () => system.matches]]) {
  place.addEventListener(event, () => {
    setTheme(dark() ? "dark" : "light");
    showColours();
  });
}
await scatter.ready;
setTheme(system.matches ? "dark" : "light");
showEmbedding();
document.documentElement.dataset.ready = "true";
