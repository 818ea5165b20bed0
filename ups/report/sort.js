// A click on the head of a column sorts its table by it, a second one the other way round.
for (const head of document.querySelectorAll("table.sorted th[scope=col] button")) {
  head.addEventListener("click", () => {
    const cell = head.parentElement, body = cell.closest("table").tBodies[0];
    const down = cell.ariaSort === "ascending";
    for (const other of cell.parentElement.cells) other.ariaSort = null;
    cell.ariaSort = down ? "descending" : "ascending";
    const value = (row) => row.cells[cell.cellIndex].dataset.value ?? row.cells[cell.cellIndex].textContent.trim();
    const order = (one, other) => {
      const [a, b] = [value(one), value(other)];
      if (!a || !b) return !a - !b || 0; // what is not known comes last, either way
      const sign = down ? -1 : 1;
      return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
    };
    body.append(...[...body.rows].sort(order));
  });
}
