// Filters for a table of verdicts: words that a row must have, and a verdict for any method.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".filterable")) {
    const rows = [...box.querySelectorAll("tbody tr")];
    const heads = [...box.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    const columns = [2, 3, 4];
    const filters = document.createElement("div");
    filters.className = "filters";
    const words = document.createElement("input");
    words.type = "search";
    words.placeholder = "Filter, such as compact";
    words.setAttribute("aria-label", "Words that a claim must have");
    const shown = document.createElement("span");
    shown.setAttribute("aria-live", "polite");
    const selects = columns.map((column) => {
      const select = document.createElement("select");
      select.setAttribute("aria-label", "Verdict: " + heads[column]);
      const verdicts = new Set(rows.map((row) => row.cells[column].textContent.trim()).filter(Boolean));
      select.add(new Option(heads[column] + ": any verdict", ""));
      [...verdicts].sort().forEach((verdict) => select.add(new Option(heads[column] + ": " + verdict, verdict)));
      return select;
    });
    const update = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const fits = selects.every((select, i) => !select.value || row.cells[columns[i]].textContent.trim() === select.value);
        row.hidden = !(fits && wanted.every((word) => text.includes(word)));
        count += !row.hidden;
      }
      shown.textContent = `${count} of ${rows.length}`;
    };
    filters.append(words, ...selects, shown);
    filters.addEventListener("input", update);
    box.prepend(filters);
    update();
  }
});

// A formula in a sentence that is wider than the text gets a line and a box of its own.
function fitMathematics() {
  for (const formula of document.querySelectorAll("span.math mjx-container")) {
    formula.classList.remove("wide");
    const room = formula.closest("p, li, td, dd, figcaption, article");
    if (room && formula.offsetWidth > room.clientWidth) formula.classList.add("wide");
  }
}
window.addEventListener("resize", fitMathematics);

// Mathematics changes the height of a page: go again to what the address names once it is set.
window.addEventListener("load", async () => {
  if (window.MathJax) await MathJax.startup.promise;
  fitMathematics();
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.scrollIntoView({ behavior: "instant" });
});
