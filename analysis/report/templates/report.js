// A click on a header sorts its table: numbers by value, texts by letters, empty cells last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => {
        const cell = row.cells[column];
        const text = cell.textContent;
        const number = "n" in cell.dataset ? Number(cell.dataset.n.replace("inf", "Infinity")) : null;
        return { row, text, number };
      });
      rows.sort((a, b) => {
        if (!a.text || !b.text) return !a.text - !b.text;
        const both = a.number !== null && b.number !== null;
        const order = both
          ? (a.number > b.number) - (a.number < b.number)
          : a.text.localeCompare(b.text, undefined, { numeric: true });
        return down ? -order : order;
      });
      body.append(...rows.map(({ row }) => row));
    });
  });
}

// What is folded is printed, too.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) {
    part.open = true;
    part.dataset.opened = "";
  }
});
addEventListener("afterprint", () => {
  for (const part of document.querySelectorAll("details[data-opened]")) {
    part.open = false;
    delete part.dataset.opened;
  }
});
