"use strict";

// Toolbar: show or hide a method in every picture.
document.querySelectorAll(".toolbar").forEach((bar) => { bar.hidden = false; });
document.querySelectorAll("[data-toggle]").forEach((button) => {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    document.querySelectorAll(`[data-method="${button.dataset.toggle}"]`).forEach((part) => {
      part.classList.toggle("off", !shown);
    });
  });
});

// Sortable tables: numbers start with the largest, words with the first; cells without a number stay last.
document.querySelectorAll("table.sortable").forEach((table) => {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headers.forEach((header, column) => {
    header.setAttribute("aria-sort", "none");
    const numeric = header.classList.contains("number");
    header.querySelector("button").addEventListener("click", () => {
      const first = numeric ? "descending" : "ascending";
      const second = numeric ? "ascending" : "descending";
      const order = header.getAttribute("aria-sort") === first ? second : first;
      headers.forEach((other) => other.setAttribute("aria-sort", other === header ? order : "none"));
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].textContent.trim();
      const compare = (a, b) => {
        if (!numeric) return sign * key(a).localeCompare(key(b), "en", { numeric: true });
        const [x, y] = [parseFloat(key(a)), parseFloat(key(b))];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x - y);
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
});
