"use strict";
// The page works without this script. It makes tables sortable, filters questions, and shows a chart's value at a point without the
// delay of a tooltip.
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
for (const list of document.querySelectorAll(".questions")) {
  const questions = [...list.querySelectorAll(".question")];
  const more = list.querySelector(".more");
  const bar = document.createElement("div");
  bar.className = "filters";
  const of = (question) => {
    const changes = (question.dataset.changes ?? "").trim().split(" ");
    return (question.dataset.arms ?? "").split("\n").map((arm, at) => [arm, changes[at]]).filter(([arm]) => arm);
  };
  const arms = [...new Set(questions.flatMap((question) => of(question).map(([arm]) => arm)))];
  const buttons = ["all", "learned", "forgotten", "never", "always"].map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.setAttribute("aria-pressed", String(name === "all"));
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      filter();
    });
    return button;
  });
  const arm = document.createElement("select");
  arm.setAttribute("aria-label", "Arm");
  for (const name of ["any arm", ...arms]) arm.append(new Option(name, name === "any arm" ? "" : name));
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "Search questions and completions";
  search.setAttribute("aria-label", "Search questions and completions");
  const left = document.createElement("span");
  left.className = "left";
  const filter = () => {
    const kind = buttons.find((button) => button.getAttribute("aria-pressed") === "true").textContent;
    const words = search.value.trim().toLowerCase();
    let count = 0;
    for (const question of questions) {
      const changes = of(question).filter(([name]) => !arm.value || name === arm.value);
      const fits = (kind === "all" ? !arm.value || changes.length > 0 : changes.some(([, change]) => change === kind)) &&
        (!words || question.textContent.toLowerCase().includes(words));
      question.hidden = !fits;
      count += fits ? 1 : 0;
    }
    if (more && (kind !== "all" || words || arm.value)) more.open = true;
    left.textContent = `${count} of ${questions.length}`;
  };
  if (arms.length > 0) bar.append(...buttons);
  if (arms.length > 1) bar.append(arm);
  bar.append(search, left);
  arm.addEventListener("change", filter);
  search.addEventListener("input", filter);
  list.before(bar);
  filter();
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
