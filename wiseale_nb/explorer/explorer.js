// The page: tabs and theme. `render` is what anywidget calls; a static page calls it with the same `model`.

const THEMES = ["auto", "light", "dark"];
let rendered = 0; // how often; several widgets of one notebook need ids of their own

class Tabs {
  constructor(parent) {
    this.list = make("div", parent, { className: "tabs", attributes: { role: "tablist" } });
    this.parent = parent;
    this.tabs = [];
    this.list.onkeydown = (event) => this.press(event);
  }

  add(name, title) {
    const id = `explorer-${rendered}-${name}`;
    const tab = make("button", this.list, { type: "button", textContent: title, id: `${id}-tab` });
    const panel = make("section", this.parent, { id, attributes: { role: "tabpanel", "aria-labelledby": `${id}-tab` } });
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", id);
    tab.onclick = () => this.show(this.tabs.findIndex((other) => other.tab === tab));
    this.tabs.push({ tab, panel });
    return panel;
  }

  show(index) {
    this.index = index;
    this.tabs.forEach(({ tab, panel }, i) => {
      tab.setAttribute("aria-selected", i === index);
      tab.tabIndex = i === index ? 0 : -1;
      panel.hidden = i !== index;
    });
  }

  press(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    this.show((this.index + by + this.tabs.length) % this.tabs.length);
    this.tabs[this.index].tab.focus();
  }
}

function makeThemeButton(parent, root, redraw) {
  const button = make("button", parent, { type: "button", className: "theme", title: "light or dark" });
  const set = (name) => {
    root.dataset.theme = name;
    button.textContent = `\u25d0 ${name}`;
    redraw();
  };
  button.onclick = () => set(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  set("auto");
}

function makeNotes(parent, data) {
  const details = make("details", parent);
  make("summary", details, { textContent: "What these networks are" });
  for (const { notes } of data.readings) for (const note of notes) make("p", details, { textContent: note });
}

function render({ model, el }) {
  const data = model.get("data");
  rendered += 1;
  const root = make("div", el, { className: "explorer" });
  make("h1", root, { textContent: "WiSE-ALE: latent explorer" });
  const tabs = new Tabs(root);
  const theme = {};
  Object.assign(theme, themeOf(root));
  const planesPanel = tabs.add("planes", "Latent planes");
  make("p", planesPanel, { textContent: INTRODUCTION });
  const planes = new Planes(planesPanel, data, theme);
  const figure4Panel = tabs.add("figure-4", "Figure 4");
  const divergencePlots = new Divergences(figure4Panel, theme);
  const shown = data.readings.filter(({ teapot }) => teapot);
  const teapotsPanel = shown.length ? tabs.add("teapots", "Teapots") : null;
  const teapots = shown.map(({ teapot }) => new Teapots(teapotsPanel, teapot));
  makeNotes(root, data);
  makeThemeButton(tabs.list, root, () => {
    Object.assign(theme, themeOf(root));
    planes.draw();
    divergencePlots.draw();
  });
  tabs.show(0);
  el.explorer = { planes, divergences: divergencePlots, teapots, tabs };
}

const INTRODUCTION =
  "Drag the ring, or move it with the arrow keys: every method decodes the place. Ellipses are the posteriors of held-out " +
  "digits, one and two standard deviations wide; the dotted circle is two of the prior. Point at a digit for its numbers.";

export default { render };
