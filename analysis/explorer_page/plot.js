// One Bokeh scatter plot. Hovering and choosing look for the nearest point themselves, so that no text of a row
// ever goes through a template.

const REACH = 14; // pixels around a point that count as hitting it
const THEMES = {
  light: { page: "#ffffff", frame: "#ffffff", ink: "#3c4149", grid: "#e8eaee", ring: "#000000", ghost: "#d4d7dc" },
  dark: { page: "#16191e", frame: "#1c2026", ink: "#b9bfc9", grid: "#2b3038", ring: "#ffffff", ghost: "#3a404a" },
};

// WebGL if a graphics card draws it. In software it is slower than a canvas, on which Bokeh draws every tenth
// point while it moves. #canvas or #webgl at the end of the address overrides this, in case of a bad driver.
function backend() {
  if (["#canvas", "#webgl"].includes(location.hash)) return location.hash.slice(1);
  const probe = document.createElement("canvas").getContext("webgl");
  const named = probe?.getExtension("WEBGL_debug_renderer_info");
  const renderer = named ? probe.getParameter(named.UNMASKED_RENDERER_WEBGL) : probe?.getParameter(probe.RENDERER);
  return probe === null || /swiftshader|llvmpipe|software|basic render/i.test(renderer) ? "canvas" : "webgl";
}

class Scatter {
  // `place`: the element to draw in. `on`: {hover(row, x, y), choose(row), select(rows)}; row is -1 away from points.
  constructor(place, on) {
    this.on = on;
    this.x = this.y = new Float32Array(0);
    this.visible = new Int32Array(0);
    this.source = new Bokeh.ColumnDataSource({ data: { x: [], y: [], fill: [], marker: [] } });
    this.rings = new Bokeh.ColumnDataSource({ data: { x: [], y: [], size: [], width: [] } });
    this.filter = new Bokeh.IndexFilter({ indices: [] });
    this.others = new Bokeh.IndexFilter({ indices: [] });
    const wheel = new Bokeh.WheelZoomTool();
    const lasso = new Bokeh.LassoSelectTool({ continuous: false });
    const box = new Bokeh.BoxSelectTool({ continuous: false });
    this.figure = Bokeh.Plotting.figure({
      sizing_mode: "stretch_both", min_width: 200, min_height: 200,
      output_backend: backend(),
      x_range: new Bokeh.Range1d(), y_range: new Bokeh.Range1d(),
      tools: [new Bokeh.PanTool(), wheel, new Bokeh.BoxZoomTool({ match_aspect: true }),
        box, lasso, new Bokeh.ResetTool(), new Bokeh.SaveTool()],
      active_scroll: wheel, toolbar_location: "right", lod_factor: 10, lod_timeout: 150,
    });
    this.figure.toolbar.logo = null;
    this.ghosts = this.scatter(this.others, { fill_color: "#cccccc", line_color: null });
    this.points = this.scatter(this.filter, {
      fill_color: { field: "fill" }, marker: { field: "marker" }, line_color: null,
    });
    this.points.nonselection_glyph.fill_alpha = 0.08;
    this.ringed = this.figure.scatter({ field: "x" }, { field: "y" }, {
      source: this.rings, size: { field: "size" }, fill_color: null, line_width: { field: "width" },
    });
    lasso.renderers = box.renderers = [this.points];
    this.listen();
    this.ready = Bokeh.Plotting.show(this.figure, place).then((view) => {
      this.view = view;
      view.canvas_view.events_el.tabIndex = -1; // `place` itself takes the focus
      new ResizeObserver(() => this.reshape()).observe(place);
    });
  }

  scatter(filter, look) {
    return this.figure.scatter({ field: "x" }, { field: "y" }, {
      source: this.source, view: new Bokeh.CDSView({ filter }), ...look,
    });
  }

  listen() {
    let dragging = false;
    this.figure.on_event("panstart", () => {
      dragging = true;
      this.on.hover(-1, 0, 0);
    });
    this.figure.on_event("panend", () => (dragging = false));
    this.figure.on_event("mousemove", ({ x, y, sx, sy }) => {
      if (!dragging) this.on.hover(this.nearest(x, y), sx, sy);
    });
    this.figure.on_event("mouseleave", () => this.on.hover(-1, 0, 0));
    // Bokeh treats a slow click as a press
    for (const kind of ["tap", "pressup"]) {
      this.figure.on_event(kind, ({ x, y }) => {
        const row = this.nearest(x, y);
        if (row >= 0) this.on.choose(row);
      });
    }
    this.source.selected.properties.indices.change.connect(() => this.on.select([...this.source.selected.indices]));
    this.figure.on_event("reset", () => this.fit());
  }

  // The visible row whose point is nearest to (x, y) and within reach, or -1.
  nearest(x, y) {
    const { width, height } = this.frame();
    const across = width / (this.figure.x_range.end - this.figure.x_range.start);
    const along = height / (this.figure.y_range.end - this.figure.y_range.start);
    let [best, found] = [REACH * REACH, -1];
    for (const row of this.visible) {
      const [dx, dy] = [(this.x[row] - x) * across, (this.y[row] - y) * along];
      const distance = dx * dx + dy * dy;
      if (distance < best) [best, found] = [distance, row];
    }
    return found;
  }

  frame() {
    const { width, height } = this.view.frame.bbox;
    return { width: Math.max(width, 1), height: Math.max(height, 1) };
  }

  // New points, or the same ones elsewhere: typed arrays of coordinates, names of colours and markers.
  move(x, y, titles) {
    [this.x, this.y] = [x, y];
    [this.figure.xaxis.axis_label, this.figure.yaxis.axis_label] = titles;
    const size = x.length <= 300 ? 11 : x.length <= 1500 ? 9 : x.length <= 8000 ? 7 : 5;
    const alpha = x.length <= 1500 ? 0.85 : 0.7;
    for (const { glyph, selection_glyph, nonselection_glyph } of [this.points, this.ghosts]) {
      for (const each of [glyph, selection_glyph, nonselection_glyph]) each.size = size;
      glyph.fill_alpha = selection_glyph.fill_alpha = alpha;
    }
    this.fit();
  }

  paint(fill, marker) {
    this.source.data = { x: this.x, y: this.y, fill, marker };
  }

  show(visible, others) {
    this.visible = visible;
    this.filter.indices = Array.from(visible);
    this.others.indices = Array.from(others);
  }

  select(rows) {
    this.source.selected.indices = rows;
  }

  // A ring around the chosen row (-1: none) and smaller ones around its neighbours.
  mark(chosen, neighbours) {
    const rows = chosen < 0 ? [] : [chosen, ...neighbours];
    this.rings.data = {
      x: rows.map((row) => this.x[row]), y: rows.map((row) => this.y[row]),
      size: rows.map((row) => (row === chosen ? 22 : 14)), width: rows.map((row) => (row === chosen ? 3 : 1.5)),
    };
  }

  // Show all points, with equal units on both axes, because distances are what a projection shows.
  fit() {
    this.wanted = { x: extent(this.x), y: extent(this.y) };
    this.look();
  }

  // After the plot changes shape: keep everything in view, with equal units on both axes.
  reshape() {
    const { x_range: { start, end }, y_range: { start: bottom, end: top } } = this.figure;
    // moved by hand since it was last set here
    if (start !== this.set.x[0] || end !== this.set.x[1] || top !== this.set.y[1]) {
      this.wanted = { x: [start, end], y: [bottom, top] };
    }
    this.look();
  }

  look() {
    const { width, height } = this.frame();
    const { x, y } = this.wanted;
    const unit = Math.max((x[1] - x[0]) / width, (y[1] - y[0]) / height) / 2;
    const around = ([low, high], pixels) => [(low + high) / 2 - unit * pixels, (low + high) / 2 + unit * pixels];
    this.set = { x: around(x, width), y: around(y, height) };
    for (const [range, [start, end]] of [[this.figure.x_range, this.set.x], [this.figure.y_range, this.set.y]]) {
      range.setv({ start, end, reset_start: start, reset_end: end });
    }
  }

  style(theme) {
    const { page, frame, ink, grid, ring, ghost } = THEMES[theme];
    this.figure.setv({ background_fill_color: frame, border_fill_color: page, outline_line_color: grid });
    for (const axis of [this.figure.xaxis, this.figure.yaxis]) {
      axis.axis_label_text_color = axis.major_label_text_color = ink;
      axis.axis_line_color = axis.major_tick_line_color = grid;
      axis.minor_tick_line_color = null;
      axis.axis_label_text_font_style = "normal";
    }
    for (const lines of [this.figure.xgrid, this.figure.ygrid]) lines.grid_line_color = grid;
    this.ghosts.glyph.fill_color = ghost;
    this.ringed.glyph.line_color = ring;
  }
}

function extent(numbers) {
  let [low, high] = [Infinity, -Infinity];
  for (const number of numbers) {
    if (!Number.isFinite(number)) continue;
    if (number < low) low = number;
    if (number > high) high = number;
  }
  if (low > high) return [0, 1];
  const margin = Math.max(0.04 * (high - low), 1e-3);
  return [low - margin, high + margin];
}
