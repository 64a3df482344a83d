// The page's data: one block of JSON, whose columns are unpacked at first use.

const page = JSON.parse(document.getElementById("data").textContent);
const NOTHING = "(none)"; // the name of a missing label or speaker
const unpacked = new Map();

const TITLES = {
  label: "label", speaker: "speaker", language: "language", predicted: "prediction", correct: "correctness",
  entropy: "entropy", learned_uncertainty: "learned uncertainty", confidence: "confidence", duration_s: "duration (s)", num_frames: "frames",
  kmeans: "K-means", hdbscan: "HDBSCAN", dbscan: "DBSCAN", pca: "PCA", tsne: "t-SNE", umap: "UMAP",
};
const COLOURS = [
  "label", "speaker", "language", "predicted", "decision", "correct", "entropy", "learned_uncertainty", "confidence", "kmeans", "hdbscan",
  "dbscan", "duration_s", "fold",
];

function unpack(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes.buffer;
}

// {kind, names, codes} of texts, {kind, values} of numbers; the arrays are typed, -1 and NaN mean "none".
function columnAt(place) {
  if (!unpacked.has(place)) {
    const { kind, names, codes, values } = page.columns[place];
    const made = { kind };
    if (kind === "text") Object.assign(made, { names, codes: new Int32Array(unpack(codes)) });
    else made.values = kind === "integers" ? new Int32Array(unpack(values)) : new Float32Array(unpack(values));
    unpacked.set(place, made);
  }
  return unpacked.get(place);
}

function has(embedding, name) {
  return Object.hasOwn(embedding.columns, name);
}

function columnOf(embedding, name) {
  return has(embedding, name) ? columnAt(embedding.columns[name]) : null;
}

// The readable text of a row in a column; null if it has none.
function shown(embedding, name, row) {
  const column = columnOf(embedding, name);
  if (column === null) return null;
  if (column.kind === "text") return column.names[column.codes[row]] || null; // a code of -1, or no text
  const value = column.values[row];
  if (Number.isNaN(value)) return null;
  return column.kind === "whole" ? String(value) : String(Number(value.toPrecision(4)));
}

function projectionsOf(embedding) {
  return Object.keys(embedding.columns)
    .filter((name) => name.endsWith("_x") && has(embedding, name.slice(0, -2) + "_y"))
    .map((name) => name.slice(0, -2));
}

function neighboursOf(embedding, row) {
  const { k, rows } = embedding.neighbours;
  return Array.from(columnAt(rows).values.subarray(row * k, (row + 1) * k));
}

// The address of a row's recording for the player; null if it has none.
function soundOf(embedding, row) {
  const found = shown(embedding, "audio", row);
  if (found === null) return null;
  return page.audio === "embed" ? "data:audio/flac;base64," + page.clips[found] : found;
}
