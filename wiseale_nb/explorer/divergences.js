// Second tab: Figure 4, two posteriors N(-m, sigma^2) and N(m, sigma^2) and their divergences from the prior.

const CURVES = {
  aevb: { label: "VAE: mean KL of the posteriors (Eq. 26)", f: meanKl, dash: [7, 4] },
  bound: { label: "WiSE-ALE: bound of Eq. 21", f: klUpperBound, dash: [] },
  true: { label: "KL of the aggregate, which the bound bounds", f: klAggregate, dash: [2, 3] },
};
const SIGMAS = { min: 0.17, max: 2 };
const TALLEST = 2.4; // nats
const EDGE = { left: 38, right: 10, top: 12, bottom: 32 };

function pair(m, sigma) {
  return [[[-m], [m]], [[sigma], [sigma]]];
}

// Values at a width, the width that is least, and the least value, for each divergence.
function divergences(m, sigma) {
  const rows = Object.entries(CURVES).map(([name, { f }]) => {
    const at = (s) => f(...pair(m, s));
    const least = leastPoint(at, 0.1, 3);
    return [name, { value: at(sigma), least, lowest: at(least) }];
  });
  return Object.fromEntries(rows);
}

// The smallest width whose bound is at most what the VAE’s term asks at its cheapest.
function acceptableWidth(m, { aevb, bound }) {
  const at = (s) => klUpperBound(...pair(m, s));
  return aevb.lowest > bound.lowest ? crossing(at, aevb.lowest, 0.02, bound.least) : bound.least;
}

// A coordinate system on a canvas: `x` and `y` turn values into pixels.
function axesOn(canvas, [x0, x1], [y0, y1], theme) {
  const context = contextOf(canvas);
  if (!context) return null;
  const { clientWidth: width, clientHeight: height } = canvas;
  const x = (v) => EDGE.left + ((v - x0) / (x1 - x0)) * (width - EDGE.left - EDGE.right);
  const y = (v) => height - EDGE.bottom - ((v - y0) / (y1 - y0)) * (height - EDGE.top - EDGE.bottom);
  context.font = "12px system-ui, sans-serif";
  return { context, x, y, theme, width, height, ends: [x0, x1, y0, y1] };
}

function drawScale({ context, x, y, theme, width, height, ends }, marks, xLabel, yLabel) {
  const [, , y0, y1] = ends;
  context.strokeStyle = theme.rule;
  context.fillStyle = theme.ink;
  context.textAlign = "center";
  for (const [place, text] of marks) {
    context.fillText(text, x(place), height - EDGE.bottom + 14);
  }
  context.fillText(xLabel, (EDGE.left + width - EDGE.right) / 2, height - 4);
  context.textAlign = "right";
  for (const v of ticks(y0, y1, 6)) {
    context.fillText(signed(v, 1), EDGE.left - 5, y(v) + 4);
    drawLine({ context, x: (p) => p, y }, [[EDGE.left, v], [width - EDGE.right, v]]);
  }
  context.save();
  context.translate(10, (EDGE.top + height - EDGE.bottom) / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(yLabel, 0, 0);
  context.restore();
  context.textAlign = "left";
}

function drawLine({ context, x, y }, points, { colour, dash = [], width = 1 } = {}) {
  if (colour) context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  for (const [a, b] of points) context.lineTo(x(a), y(b));
  context.stroke();
  context.setLineDash([]);
}

class Divergences {
  constructor(parent, theme) {
    this.theme = theme;
    const bar = make("div", parent, { className: "bar" });
    this.m = makeSlider(bar, "means at \u00b1m, m =", { min: 0, max: 3, step: 0.01, value: 1 });
    this.sigma = makeSlider(bar, "width \u03c3 =", { ...SIGMAS, step: 0.001, value: 1 }, (v) => v.toFixed(3));
    this.makeButtons(make("div", parent, { className: "bar" }));
    const plots = make("div", parent, { className: "plots" });
    this.densities = this.makePlot(plots, "The two posteriors, their aggregate and the prior");
    this.curves = this.makePlot(plots, "The divergences over the variance of both posteriors");
    this.table = make("table", make("div", parent, { className: "wide" }));
    this.overlap = make("p", parent);
    for (const slider of [this.m, this.sigma]) slider.addEventListener("input", () => this.update());
    const watcher = new ResizeObserver(() => this.draw());
    [this.densities, this.curves].forEach((canvas) => watcher.observe(canvas));
    this.update();
  }

  makePlot(parent, title) {
    const figure = make("figure", parent);
    make("figcaption", figure, { textContent: title });
    return make("canvas", figure, { className: "plot", attributes: { role: "img", "aria-label": title } });
  }

  makeButtons(bar) {
    make("span", bar, { textContent: "Set the width to" });
    const widths = {
      "(a) the VAE’s minimum": () => this.now.aevb.least,
      "(b) the minimum of Eq. 21": () => this.now.bound.least,
      "(c) the least acceptable": () => this.acceptable,
      "the minimum of the aggregate’s KL": () => this.now.true.least,
    };
    for (const [text, width] of Object.entries(widths)) {
      make("button", bar, { type: "button", textContent: text }).onclick = () => this.setWidth(width());
    }
  }

  setWidth(sigma) {
    this.sigma.value = sigma;
    this.sigma.refresh();
    this.update();
  }

  update() {
    const [m, sigma] = [+this.m.value, +this.sigma.value];
    this.now = divergences(m, sigma);
    this.acceptable = acceptableWidth(m, this.now);
    this.fillTable();
    const wrong = normalTail(-m / sigma);
    this.overlap.textContent =
      `Guessing from a code which of the two inputs it came from goes wrong in ${(100 * wrong).toFixed(1)} % of cases. ` +
      `The least width that the bound accepts is ${this.acceptable.toFixed(3)}: there it asks as much as the VAE’s term at its cheapest.`;
    this.draw();
  }

  fillTable() {
    this.table.replaceChildren();
    const head = make("tr", this.table);
    for (const text of ["nats", "at this width", "least at \u03c3 =", "least value"]) make("th", head, { textContent: text });
    for (const [name, { value, least, lowest }] of Object.entries(this.now)) {
      const row = make("tr", this.table);
      const cell = make("td", row);
      make("span", cell, { className: `swatch ${name}` });
      cell.append(CURVES[name].label);
      for (const number of [value, least, lowest]) make("td", row, { textContent: signed(number, 4) });
    }
  }

  draw() {
    this.drawDensities();
    this.drawCurves();
  }

  drawDensities() {
    const [mu, sigma] = pair(+this.m.value, +this.sigma.value);
    const top = Math.max(0.45, 1.08 / (sigma[0][0] * Math.sqrt(2 * Math.PI)));
    const axes = axesOn(this.densities, [-5, 5], [0, top], this.theme);
    if (!axes) return;
    drawScale(axes, [-4, -2, 0, 2, 4].map((z) => [z, signed(z, 0)]), "z", "density");
    const zs = Array.from({ length: 401 }, (_, i) => -5 + i / 40);
    const curve = (logDensity) => zs.map((z) => [z, Math.exp(logDensity([z]))]);
    const { theme } = this;
    drawLine(axes, curve(logPrior), { colour: theme.soft, dash: [2, 3], width: 1.5 });
    mu.forEach((m, i) => drawLine(axes, curve((z) => logNormal(z, m, sigma[i])), { colour: theme.aevb, width: 1.2 }));
    drawLine(axes, curve((z) => logAggregate(z, mu, sigma)), { colour: theme.ink, width: 2.2 });
    this.explain(axes, [["aggregate", theme.ink], ["posteriors", theme.aevb], ["prior", theme.soft]]);
  }

  explain({ context }, names) {
    names.forEach(([name, colour], row) => {
      context.fillStyle = colour;
      context.fillText(name, EDGE.left + 8, EDGE.top + 14 + 15 * row);
    });
  }

  drawCurves() {
    const [m, sigma] = [+this.m.value, +this.sigma.value];
    const limits = [2 * Math.log(SIGMAS.min), 2 * Math.log(SIGMAS.max)];
    const low = Math.min(...Object.values(this.now).map(({ lowest }) => lowest));
    const bottom = 0.5 * Math.floor(low / 0.5);
    const axes = axesOn(this.curves, limits, [bottom, bottom + TALLEST], this.theme);
    if (!axes) return;
    const marks = [0.03, 0.1, 0.3, 1, 3].map((v) => [Math.log(v), v]);
    drawScale(axes, marks, "posterior variance \u03c3\u00b2", "nats");
    axes.context.save();
    axes.context.beginPath();
    axes.context.rect(EDGE.left, EDGE.top, axes.width - EDGE.left - EDGE.right, axes.height - EDGE.top - EDGE.bottom);
    axes.context.clip();
    drawLine(axes, [[2 * Math.log(sigma), bottom], [2 * Math.log(sigma), bottom + TALLEST]], { colour: this.theme.point });
    for (const name of Object.keys(CURVES)) this.drawCurve(axes, name, m, limits);
    axes.context.restore();
  }

  drawCurve(axes, name, m, [low, high]) {
    const { f, dash } = CURVES[name];
    const { value, least, lowest } = this.now[name];
    const colour = this.theme[name];
    const places = Array.from({ length: 81 }, (_, i) => low + ((high - low) * i) / 80);
    drawLine(axes, places.map((v) => [v, f(...pair(m, Math.exp(v / 2)), 601)]), { colour, dash, width: 2 });
    this.drawDot(axes, 2 * Math.log(least), lowest, colour, true);
    this.drawDot(axes, 2 * Math.log(+this.sigma.value), value, colour, false);
  }

  // A minimum is a filled dot, the value at the chosen width an open one.
  drawDot({ context, x, y, theme }, place, value, colour, filled) {
    context.beginPath();
    context.arc(x(place), y(value), 5, 0, 2 * Math.PI);
    context.fillStyle = filled ? colour : theme.paper;
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = colour;
    context.stroke();
  }
}
