// The text panels: tooltip, chosen row, its neighbours, selected rows. Text is inserted as text, never as HTML.

const TABLE_ROWS = 200;
const FIRST = ["text", "label", "predicted", "decision", "correct", "speaker", "language"]; // of a row's details
const SHORT = 200; // letters of a text in the tooltip and in the table; the details have all of it
const NOT_LISTED = /^(id|path|audio)$|_[xy]$/; // shown in the title, the last line, or not at all

function element(tag, text = "", name = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function titleOf(embedding, name) {
  if (name === "label" && embedding.label && embedding.label !== "label") return `label (${embedding.label})`;
  return TITLES[name] ?? name;
}

function fieldsOf(embedding, row, names, letters = Infinity) {
  return names
    .map((name) => [titleOf(embedding, name), shown(embedding, name, row)])
    .filter(([, value]) => value !== null)
    .flatMap(([title, value]) => [element("dt", title), element("dd", shortened(value, letters))]);
}

function shortened(text, letters) {
  return text.length <= letters ? text : `${Array.from(text).slice(0, letters).join("")}…`;
}

function drawTooltip(place, embedding, row, x, y, colour) {
  place.hidden = row < 0;
  if (row < 0) return;
  const names = [...new Set(["label", "speaker", "language", "predicted", colour, "text"])].filter((name) => name !== "id");
  const list = element("dl");
  list.append(...fieldsOf(embedding, row, names, SHORT));
  place.replaceChildren(element("strong", shortened(shown(embedding, "id", row), SHORT)), list);
  const { clientWidth: width, clientHeight: height } = place.parentElement;
  const left = x + 18 + place.offsetWidth > width ? x - 18 - place.offsetWidth : x + 18;
  const top = y + 12 + place.offsetHeight > height ? y - 12 - place.offsetHeight : y + 12;
  place.style.transform = `translate(${Math.max(0, Math.round(left))}px, ${Math.max(0, Math.round(top))}px)`;
}

// A button with a row's id that chooses the row.
function rowButton(embedding, row, choose) {
  const button = element("button", shown(embedding, "id", row), "row");
  button.type = "button";
  button.addEventListener("click", () => choose(row));
  return button;
}

function drawDetails(embedding, row) {
  const others = Object.keys(embedding.columns).filter((name) => !FIRST.includes(name) && !NOT_LISTED.test(name));
  const names = [...FIRST, ...others, "path"];
  document.getElementById("details-title").textContent = row < 0 ? "No row chosen" : shown(embedding, "id", row);
  document.getElementById("hint").hidden = row >= 0;
  document.getElementById("fields").replaceChildren(...(row < 0 ? [] : fieldsOf(embedding, row, names)));
}

function drawNeighbours(embedding, row, visible, choose) {
  const rows = row < 0 ? [] : neighboursOf(embedding, row);
  const place = document.getElementById("neighbours");
  const focused = [...place.querySelectorAll("button")].indexOf(document.activeElement);
  document.getElementById("near").hidden = rows.length === 0;
  place.replaceChildren(...rows.map((other) => {
    const item = element("li");
    const button = rowButton(embedding, other, choose);
    const tags = element("span", "", "tags");
    for (const name of ["label", "speaker"]) {
      const [mine, its] = [shown(embedding, name, row), shown(embedding, name, other)];
      if (its === null) continue;
      const same = mine === its;
      const tag = element("span", "", same ? "tag same" : "tag");
      if (mine !== null) {
        const sign = element("span", same ? "= " : "≠ ");
        sign.setAttribute("aria-label", same ? `same ${name}` : `another ${name}`);
        sign.setAttribute("role", "img");
        tag.append(sign);
      }
      tag.append(element("bdi", its));
      tags.append(tag);
    }
    if (!visible(other)) tags.append(element("span", "filtered out", "tag"));
    button.append(tags);
    item.append(button);
    return item;
  }));
  place.querySelectorAll("button")[focused]?.focus(); // after choosing with Enter: focus the same place in the new list
}

function countsOf(embedding, rows, name) {
  const counts = new Map();
  for (const row of rows) {
    const value = shown(embedding, name, row) ?? NOTHING;
    counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1]);
}

function drawSelection(embedding, rows, choose) {
  const many = rows.length > TABLE_ROWS ? `; the first ${TABLE_ROWS} are listed` : "";
  const noun = rows.length === 1 ? "row" : "rows";
  document.getElementById("selection").hidden = rows.length === 0;
  document.getElementById("selection-title").textContent = `${rows.length.toLocaleString("en")} ${noun} selected${many}`;
  const names = ["label", "speaker", "language", "predicted", "correct"].filter((name) => has(embedding, name));
  document.getElementById("counts").replaceChildren(...names.slice(0, 2).map((name) => {
    const line = element("p");
    line.append(element("b", `${titleOf(embedding, name)}: `));
    const counts = countsOf(embedding, rows, name);
    for (const [value, count] of counts.slice(0, 12)) {
      line.append(element("bdi", value), ` ${count.toLocaleString("en")}   `);
    }
    if (counts.length > 12) line.append(`and ${counts.length - 12} more`);
    return line;
  }));
  const table = element("table");
  const head = element("tr");
  head.append(...["id", ...names.map((name) => titleOf(embedding, name)), "text"].map((title) => {
    const cell = element("th", title);
    cell.scope = "col";
    return cell;
  }));
  table.append(head, ...rows.slice(0, TABLE_ROWS).map((row) => {
    const line = element("tr");
    const first = element("th");
    first.scope = "row";
    first.append(rowButton(embedding, row, choose));
    line.append(first, ...[...names, "text"].map((name) => element("td", shortened(shown(embedding, name, row) ?? "", SHORT))));
    return line;
  }));
  document.getElementById("table").replaceChildren(table);
}

function downloadIds(embedding, rows) {
  const quoted = rows.map((row) => `"${shown(embedding, "id", row).replaceAll('"', '""')}"`);
  const address = URL.createObjectURL(new Blob([["id", ...quoted, ""].join("\r\n")], { type: "text/csv" }));
  const link = element("a");
  link.href = address;
  link.download = "ids.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function decimals(value) {
  return typeof value === "number" ? value.toFixed(2) : "";
}

// A few facts about the embedding: how much it reveals of label and speaker, and what was left out.
function drawNotes(embedding) {
  const place = document.getElementById("notes");
  place.replaceChildren();
  const remarks = [...new Set([...page.notices, ...embedding.notes])]; // including notes of `analyze` about this page
  if (embedding.leakage.length > 0) {
    const details = element("details");
    const table = element("table", "", "leakage");
    const head = element("tr");
    head.append(...["measure", "label", "speaker"].map((title) => element("th", title)));
    table.append(head, ...embedding.leakage.map((line) => {
      const row = element("tr");
      row.append(element("td", line.measure), ...["label", "speaker"].map((name) => {
        const cell = element("td", decimals(line[name]), "number");
        if (typeof line[`chance_${name}`] === "number") cell.append(` (${decimals(line[`chance_${name}`])})`);
        return cell;
      }));
      return row;
    }));
    details.append(element("summary", "Label and speaker in this embedding"), table, element("p", "In brackets: chance level.", "hint"));
    place.append(details);
  }
  if (remarks.length > 0) {
    const list = element("ul");
    list.append(...remarks.map((remark) => element("li", remark)));
    place.append(element("h2", "Notes"), list);
  }
}
