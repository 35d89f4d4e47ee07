// Elements, canvases and colours.

function make(tag, parent, properties = {}) {
  const { attributes = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return parent.appendChild(element);
}

// A choice of one: a select with a label; `options` are pairs of value and text.
function makeSelect(parent, text, options) {
  const label = make("label", parent, { textContent: `${text} ` });
  const select = make("select", label, { attributes: { "aria-label": text } });
  for (const [value, name] of options) make("option", select, { value, textContent: name });
  return select;
}

function makeCheck(parent, text) {
  const label = make("label", parent);
  const box = make("input", label, { type: "checkbox" });
  label.append(` ${text}`);
  return box;
}

// A slider with its name before and its value behind it; `show` turns the value into text.
function makeSlider(parent, name, { min, max, step, value }, show = (v) => v.toFixed(2)) {
  const label = make("label", parent, { className: "slider" });
  make("span", label, { textContent: name });
  const input = make("input", label, { type: "range", min, max, step });
  input.value = value; // not before min and max are set
  const output = make("output", label);
  input.refresh = () => (output.textContent = show(+input.value));
  input.addEventListener("input", input.refresh);
  input.refresh();
  return input;
}

// Values in [0, 1], channel by channel, as the pixels of a square canvas.
function paint(canvas, values, channels = 1) {
  const size = Math.sqrt(values.length / channels);
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(255 * values[(channels === 3 ? c : 0) * size * size + i]);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// The images of a data set, as values in [0, 1].
function imagesOf({ images, count }) {
  const bytes = bytesOf(images);
  const length = bytes.length / count;
  return Array.from({ length: count }, (_, i) => Float32Array.from(bytes.subarray(i * length, (i + 1) * length), (v) => v / 255));
}

// The context of a canvas with one unit for each CSS pixel, sharp on every screen; null while it is hidden.
function contextOf(canvas) {
  const { clientWidth, clientHeight } = canvas;
  if (!clientWidth) return null;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(clientWidth * scale);
  canvas.height = Math.round(clientHeight * scale);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return context;
}

function themeOf(element) {
  const style = getComputedStyle(element);
  const names = ["ink", "paper", "soft", "rule", "point", "aevb", "bound", "true"];
  const colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  return { ...colours, dark: style.getPropertyValue("--dark").trim() === "1" };
}

// Mixes a colour such as "#88CCEE" with white (towards 1) or black (towards -1).
function shade(colour, amount) {
  const parts = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
  const mixed = parts.map((v) => Math.round(amount > 0 ? v + (255 - v) * amount : v * (1 + amount)));
  return `rgb(${mixed.join(" ")})`;
}

// "-0.5" with a true minus sign.
function signed(value, digits = 2) {
  return value.toFixed(digits).replace("-", "\u2212");
}

function tuple(values, digits = 2) {
  return `(${Array.from(values, (v) => signed(v, digits)).join(", ")})`;
}

function ticks(low, high, most = 6) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500];
  const step = steps.find((s) => (high - low) / s <= most) || (high - low) / most;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}
