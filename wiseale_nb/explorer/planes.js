// First tab: the latent planes of all methods, side by side.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const MARGIN = 0.05; // of a plane's width, on each side
const GRID = 80; // points of the density map, along each axis
const STRONG = 4; // nats at which the colours of the log ratio are full
const SOLID = 190; // their opacity then, of 255
const SPARSE = [42, 111, 187]; // where the prior is denser
const DENSE = [217, 95, 2]; // where the aggregate is denser

// A square that holds two standard deviations of all posteriors and of the prior, with a margin.
function squareAround(methods) {
  const ends = [0, 1].map((k) => {
    const all = methods.flatMap(({ mu, sigma }) => mu.map((m, i) => [m[k] - 2 * sigma[i][k], m[k] + 2 * sigma[i][k]]));
    return [Math.min(-2, ...all.map((e) => e[0])), Math.max(2, ...all.map((e) => e[1]))];
  });
  const half = Math.max(...ends.map(([low, high]) => (high - low) / 2)) / (1 - 2 * MARGIN);
  return { middle: ends.map(([low, high]) => (low + high) / 2), half };
}

class Plane {
  constructor(parent, method, digits) {
    Object.assign(this, method, { decode: makeDecoder(method), digits, z: [0, 0], own: squareAround([method]) });
    this.square = this.own;
    const figure = make("figure", parent);
    make("figcaption", figure, { textContent: method.label });
    const stage = make("div", figure, { className: "stage" });
    const says = `Latent plane of ${method.label}. Arrow keys move the point, with Shift in larger steps.`;
    const attributes = { role: "application", "aria-label": says };
    this.canvas = make("canvas", stage, { className: "plane", tabIndex: 0, attributes });
    this.tip = make("div", stage, { className: "tip", hidden: true });
    this.tipImage = make("canvas", this.tip, { width: 28, height: 28 });
    this.tipText = make("div", this.tip);
    this.makeImages(figure);
  }

  makeImages(figure) {
    const images = make("div", figure, { className: "images" });
    for (const [name, text] of [["decoded", "decoded"], ["nearest", "nearest input"]]) {
      const box = make("div", images);
      this[name] = make("canvas", box, { width: 28, height: 28, className: "digit" });
      make("small", box, { textContent: text });
    }
    this.readout = make("div", figure, { className: "readout" });
  }

  get size() {
    return this.canvas.clientWidth;
  }

  get unit() {
    return this.size / (2 * this.square.half);
  }

  toPixels(z) {
    const { middle } = this.square;
    return [this.size / 2 + (z[0] - middle[0]) * this.unit, this.size / 2 - (z[1] - middle[1]) * this.unit];
  }

  toPlane([x, y]) {
    const { middle } = this.square;
    return [middle[0] + (x - this.size / 2) / this.unit, middle[1] - (y - this.size / 2) / this.unit];
  }

  // The code under a mouse or a finger.
  codeAt(event) {
    const box = this.canvas.getBoundingClientRect();
    return this.toPlane([event.clientX - box.left - this.canvas.clientLeft, event.clientY - box.top - this.canvas.clientTop]);
  }

  // The digit whose mean is nearest, and how far it is away on the screen.
  nearestTo(z) {
    const gaps = this.mu.map((m) => Math.hypot(m[0] - z[0], m[1] - z[1]));
    const index = gaps.indexOf(Math.min(...gaps));
    return { index, pixels: gaps[index] * this.unit };
  }

  move(z) {
    this.z = z;
    this.pixels = this.decode(z);
    paint(this.decoded, this.pixels);
    const { index } = this.nearestTo(z);
    paint(this.nearest, this.digits.images[index]);
    this.readout.textContent = `z = ${tuple(z)}`;
  }

  showTip(index) {
    this.tip.hidden = index < 0;
    if (index < 0) return;
    const [x] = this.toPixels(this.mu[index]);
    this.tip.classList.toggle("right", x < this.size / 2);
    paint(this.tipImage, this.digits.images[index]);
    const [mu, sigma] = [this.mu[index], this.sigma[index]];
    const lines = [`a ${this.digits.labels[index]} (no. ${index})`, `mean ${tuple(mu)}`, `std ${tuple(sigma, 3)}`];
    this.tipText.innerText = lines.join("\n");
  }

  draw(state) {
    const context = contextOf(this.canvas);
    if (!context) return;
    if (state.density !== "none") this.drawDensity(context, state);
    this.drawAxes(context, state.theme);
    this.drawPosteriors(context, state);
    if (state.path) this.drawPath(context, state);
    this.drawPoint(context, state.theme);
  }

  ellipse(context, z, [rx, ry]) {
    context.beginPath();
    context.ellipse(...this.toPixels(z), rx, ry, 0, 0, 2 * Math.PI);
  }

  drawAxes(context, theme) {
    context.font = "10px system-ui, sans-serif";
    context.fillStyle = theme.soft;
    const [left, bottom] = this.toPlane([0, this.size]);
    const [right, top] = this.toPlane([this.size, 0]);
    for (const z of ticks(left, right, 5)) {
      const [x] = this.toPixels([z, 0]);
      if (x > 14 && x < this.size - 14) context.fillText(signed(z, 0), x - 4, this.size - 4);
    }
    for (const z of ticks(bottom, top, 5)) {
      const [, y] = this.toPixels([0, z]);
      if (y > 14 && y < this.size - 18) context.fillText(signed(z, 0), 4, y + 3);
    }
    context.setLineDash([2, 4]);
    context.strokeStyle = theme.ink;
    this.ellipse(context, [0, 0], [2 * this.unit, 2 * this.unit]);
    context.stroke();
    context.setLineDash([]);
  }

  drawPosteriors(context, { theme, colours, hovered, density }) {
    const strength = density === "none" ? 1 : 0.5;
    for (const [scale, alpha] of [[2, 0.12], [1, 0.28]]) {
      this.mu.forEach((mu, i) => {
        context.globalAlpha = alpha * strength;
        context.fillStyle = theme.dark ? shade(colours[this.digits.labels[i]], 0.35) : colours[this.digits.labels[i]];
        this.ellipse(context, mu, this.sigma[i].map((s) => scale * s * this.unit));
        context.fill();
      });
    }
    context.globalAlpha = 1;
    this.mu.forEach((_, i) => this.drawMean(context, i, theme, colours, i === hovered));
  }

  drawMean(context, i, theme, colours, large) {
    const label = this.digits.labels[i];
    const [x, y] = this.toPixels(this.mu[i]);
    context.fillStyle = shade(colours[label], theme.dark ? 0.55 : -0.35);
    this.ellipse(context, this.mu[i], large ? [6, 6] : [2.2, 2.2]);
    context.fill();
    context.font = `${large ? "bold 14px" : this.size < 240 ? "9px" : "11px"} system-ui, sans-serif`;
    context.fillText(label, x + (large ? 7 : 3), y - (large ? 6 : 3));
  }

  drawPath(context, { path, theme }) {
    context.strokeStyle = theme.point;
    context.beginPath();
    path.forEach((i) => context.lineTo(...this.toPixels(this.mu[i])));
    context.stroke();
  }

  // A ring, at the edge with an empty middle if the code lies outside of what is shown.
  drawPoint(context, theme) {
    const place = this.toPixels(this.z);
    const held = place.map((v) => Math.min(Math.max(v, 8), this.size - 8));
    const outside = place.some((v, k) => Math.abs(v - held[k]) > 8);
    const ring = (colour, width) => {
      Object.assign(context, { strokeStyle: colour, lineWidth: width });
      context.beginPath();
      context.arc(...held, outside ? 5 : 9, 0, 2 * Math.PI);
      context.stroke();
    };
    if (outside) context.setLineDash([3, 2]);
    ring(theme.paper, 6);
    ring(theme.point, 2.5);
    context.setLineDash([]);
    context.lineWidth = 1;
  }

  drawDensity(context, { density, theme }) {
    const key = [density, theme.dark, this.square.half, ...this.square.middle].join();
    if (this.mapKey !== key) this.map = this.densityMap(density, theme);
    this.mapKey = key;
    context.imageSmoothingEnabled = true;
    context.drawImage(this.map, 0, 0, this.size, this.size);
  }

  densityMap(density, theme) {
    const map = document.createElement("canvas");
    map.width = map.height = GRID;
    const context = map.getContext("2d");
    const image = context.createImageData(GRID, GRID);
    const cell = (2 * this.square.half) / GRID;
    const sigma = this.sigma.map((pair) => pair.map((s) => Math.hypot(s, cell / 2))); // at the map's resolution
    const codes = Array.from({ length: GRID * GRID }, (_, n) => this.gridCode(n));
    const logQ = codes.map((z) => logAggregate(z, this.mu, sigma));
    const top = logQ.reduce((a, b) => Math.max(a, b));
    codes.forEach((z, n) => {
      const colour = density === "aggregate" ? greyOf(logQ[n] - top, theme) : ratioColour(logQ[n], logPrior(z), top);
      image.data.set(colour, 4 * n);
    });
    context.putImageData(image, 0, 0);
    return map;
  }

  gridCode(n) {
    const along = (k) => ((k + 0.5) / GRID) * this.size;
    return this.toPlane([along(n % GRID), along(Math.floor(n / GRID))]);
  }
}

// The root of the density relative to its peak, as in Figure 1: it keeps faint regions visible.
function greyOf(logDensity, theme) {
  const level = theme.dark ? 230 : 40;
  return [level, level, level, 150 * Math.exp(0.5 * logDensity)];
}

// The log ratio of aggregate and prior; it fades where the denser of the two is thin, measured by its peak.
function ratioColour(logQ, logP, top) {
  const strength = Math.min(Math.abs(logQ - logP) / STRONG, 1);
  const [colour, level] = logQ > logP ? [DENSE, logQ - top] : [SPARSE, logP - logPrior([0, 0])];
  return [...colour, SOLID * strength * Math.exp(0.5 * level)];
}

class Planes {
  constructor(parent, data, theme) {
    this.state = { mode: "z", density: "none", hovered: -1, path: null, theme, colours: data.colours };
    this.views = [];
    this.makeControls(parent, data.readings[0].mnist);
    for (const reading of data.readings) this.makeReading(parent, reading, data.readings.length > 1);
    this.views.forEach((view) => this.listen(view));
    const watcher = new ResizeObserver(() => this.draw());
    this.views.forEach((view) => watcher.observe(view.canvas));
    this.between();
  }

  makeReading(parent, { title, mnist }, several) {
    if (several) make("h3", parent, { textContent: title });
    const panels = make("div", parent, { className: "panels" });
    const images = imagesOf(mnist);
    this.views.push(...mnist.methods.map((method) => new Plane(panels, method, { labels: mnist.labels, images })));
  }

  makeControls(parent, { labels }) {
    const bar = make("div", parent, { className: "bar" });
    const modes = [["z", "the same z in all planes"], ["digit", "the same digit in all planes"], ["one", "this plane only"]];
    this.mode = makeSelect(bar, "Moving sets", modes);
    const densities = [["none", "none"], ["aggregate", "aggregate posterior"], ["ratio", "aggregate against prior"]];
    this.density = makeSelect(bar, "Density", densities);
    this.common = makeCheck(bar, "one scale for all planes");
    this.key = make("span", bar, { className: "key" });
    this.makePath(make("div", parent, { className: "bar between" }), labels);
    this.mode.onchange = () => this.drag(this.views[0], this.views[0].z);
    this.density.onchange = () => {
      this.explainDensity();
      this.change({ density: this.density.value });
    };
    this.common.onchange = () => this.rescale();
  }

  makePath(bar, labels) {
    const options = labels.map((label, i) => [i, `${label} (no. ${i})`]);
    this.from = makeSelect(bar, "From", options);
    this.slider = make("input", bar, { type: "range", min: 0, max: 1, step: 0.005, className: "path" });
    this.slider.setAttribute("aria-label", "place between the posterior means of two digits");
    this.slider.value = 0;
    this.to = makeSelect(bar, "to", options);
    this.to.value = labels.findIndex((label) => label !== labels[0]);
    for (const control of [this.slider, this.from, this.to]) control.addEventListener("input", () => this.between());
  }

  change(values) {
    Object.assign(this.state, values);
    this.draw();
  }

  explainDensity() {
    this.key.replaceChildren();
    if (this.density.value !== "ratio") return;
    make("span", this.key, { textContent: "prior denser " });
    const gradient = [[...SPARSE, SOLID], [128, 128, 128, 0], [...DENSE, SOLID]].map(
      ([r, g, b, alpha]) => `rgb(${r} ${g} ${b} / ${alpha / 255})`,
    );
    make("span", this.key, { className: "ramp" }).style.background = `linear-gradient(90deg, ${gradient.join(", ")})`;
    make("span", this.key, { textContent: ` aggregate denser, full from ${STRONG} nats` });
  }

  rescale() {
    const common = squareAround(this.views);
    for (const view of this.views) view.square = this.common.checked ? common : view.own;
    this.draw();
  }

  // Moves the point of one plane, and those of the others as the mode says.
  drag(view, z) {
    const { index } = view.nearestTo(z);
    const mode = this.mode.value;
    const moved = mode === "one" ? [view] : this.views;
    for (const other of moved) other.move(mode === "digit" ? other.mu[index] : z);
    this.change({ path: null, hovered: mode === "digit" ? index : this.state.hovered });
  }

  between() {
    const [t, a, b] = [this.slider, this.from, this.to].map((control) => +control.value);
    for (const view of this.views) view.move([0, 1].map((k) => (1 - t) * view.mu[a][k] + t * view.mu[b][k]));
    this.change({ path: [a, b] });
  }

  hover(view, z, reach = 12) {
    const { index, pixels } = view.nearestTo(z);
    const hovered = pixels < reach ? index : -1;
    for (const other of this.views) other.showTip(other === view ? hovered : -1);
    if (hovered !== this.state.hovered) this.change({ hovered });
  }

  listen(view) {
    const { canvas } = view;
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.drag(view, view.codeAt(event));
      this.hover(view, view.codeAt(event), event.pointerType === "mouse" ? 12 : 20);
    };
    canvas.onpointermove = (event) => {
      if (event.buttons) this.drag(view, view.codeAt(event));
      this.hover(view, view.codeAt(event));
    };
    canvas.onpointerleave = () => this.hover(view, [Infinity, Infinity]);
    canvas.onkeydown = (event) => this.press(view, event);
  }

  press(view, event) {
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    const length = (event.shiftKey ? 20 : 4) / view.unit;
    if (this.mode.value === "digit") this.step(view, arrow[0] + arrow[1]);
    else this.drag(view, view.z.map((v, k) => v + length * arrow[k]));
    this.hover(view, view.z);
  }

  // To the next digit or the one before.
  step(view, by) {
    const { index } = view.nearestTo(view.z);
    this.drag(view, view.mu[(index + by + view.mu.length) % view.mu.length]);
  }

  draw() {
    for (const view of this.views) view.draw(this.state);
  }
}
