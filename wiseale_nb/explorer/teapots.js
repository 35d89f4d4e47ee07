// Third tab: images with more than two latent dimensions, one slider for each.

const THUMB = 14; // pixels, the width of a slider's handle in explorer.css

const TEAPOT_INTRODUCTION =
  "Choose a held-out image; each method starts at its own posterior mean. A slider moves one latent dimension over what the " +
  "aggregate posterior covers, and its band is one standard deviation of the image’s posterior to either side of the mean. " +
  "Dimensions that tell images apart best come first.";

class Walker {
  constructor(parent, method, channels) {
    Object.assign(this, method, { decode: makeDecoder(method), channels });
    const figure = make("figure", parent, { className: "walker" });
    make("figcaption", figure, { textContent: method.label });
    this.canvas = make("canvas", figure, { className: "decoded", attributes: { role: "img", "aria-label": `decoded by ${method.label}` } });
    this.sliders = [];
    for (const k of this.bestFirst()) this.makeAxis(figure, k);
    const back = make("button", figure, { type: "button", textContent: "back to the posterior’s mean" });
    back.onclick = () => this.start(this.index);
  }

  // Axes along which the means of held-out images differ most, measured in posterior widths.
  bestFirst() {
    return this.ratio.map((_, k) => k).sort((a, b) => this.ratio[b] - this.ratio[a]);
  }

  makeAxis(parent, k) {
    const label = make("label", parent, { className: "axis" });
    make("span", label, { textContent: `z${k + 1}`, title: `spread over width: ${this.ratio[k].toPrecision(2)}` });
    const track = make("span", label, { className: "track" });
    const band = make("span", track, { className: "band" });
    const [min, max] = [this.centre[k] - this.reach[k], this.centre[k] + this.reach[k]];
    const slider = make("input", track, { type: "range", min, max, step: (max - min) / 200 });
    const output = make("output", label);
    this.sliders[k] = { slider, band, output, min, max };
    slider.addEventListener("input", () => this.move());
  }

  // To the posterior mean of an image; the bands show one standard deviation of its posterior to either side.
  start(index) {
    this.index = index;
    this.sliders.forEach(({ slider, band, min, max }, k) => {
      const [mu, sigma] = [this.mu[index][k], this.sigma[index][k]];
      slider.value = mu;
      const [low, high] = [mu - sigma, mu + sigma].map((v) => Math.min(Math.max((v - min) / (max - min), 0), 1));
      band.style.left = `calc(${THUMB / 2}px + ${low} * (100% - ${THUMB}px))`;
      band.style.width = `max(2px, ${high - low} * (100% - ${THUMB}px))`;
    });
    this.move();
  }

  move() {
    this.z = this.sliders.map(({ slider }) => +slider.value);
    this.pixels = this.decode(this.z);
    paint(this.canvas, this.pixels, this.channels);
    this.sliders.forEach(({ output }, k) => (output.textContent = signed(this.z[k])));
  }
}

class Teapots {
  constructor(parent, data) {
    const { methods, channels } = data;
    make("p", parent, { textContent: TEAPOT_INTRODUCTION });
    const choice = make("div", parent, { className: "bar thumbs", attributes: { role: "group", "aria-label": "held-out image" } });
    const panels = make("div", parent, { className: "walkers" });
    this.views = methods.map((method) => new Walker(panels, method, channels));
    this.buttons = imagesOf(data).map((values, index) => this.makeThumb(choice, values, channels, index));
    this.choose(0);
  }

  makeThumb(parent, values, channels, index) {
    const button = make("button", parent, { type: "button", attributes: { "aria-label": `image ${index + 1}` } });
    paint(make("canvas", button), values, channels);
    button.onclick = () => this.choose(index);
    return button;
  }

  choose(index) {
    this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === index));
    for (const view of this.views) view.start(index);
  }
}
