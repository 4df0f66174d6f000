"use strict";
// The page works without this script. It makes tables sortable, and shows a chart's value at a point without the delay of a tooltip.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const first = [...body.rows];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const was = head.getAttribute("aria-sort");
      const next = was === null ? "descending" : was === "descending" ? "ascending" : null;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      let rows = [...first];
      if (next !== null) {
        head.setAttribute("aria-sort", next);
        const key = (row) => row.cells[column].dataset.value;
        const text = (row) => row.cells[column].textContent;
        const sign = next === "ascending" ? 1 : -1;
        // Cells without a number are sorted last in both directions.
        rows.sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (x !== undefined && y !== undefined) return sign * (Number(x) - Number(y));
          if (x !== undefined || y !== undefined) return x === undefined ? 1 : -1;
          return sign * text(a).localeCompare(text(b), "en");
        });
      }
      body.append(...rows);
    });
  });
}
const told = document.createElement("div");
told.className = "told";
told.hidden = true;
document.body.append(told);
document.addEventListener("pointermove", (event) => {
  const shape = event.target.closest?.(".rft-chart .cell, .rft-chart .dot");
  const title = shape?.querySelector("title");
  told.hidden = !title;
  if (!title) return;
  told.textContent = title.textContent;
  const left = Math.min(event.clientX + 12, window.innerWidth - told.offsetWidth - 8);
  told.style.left = `${Math.max(8, left)}px`;
  told.style.top = `${event.clientY + 16}px`;
});
