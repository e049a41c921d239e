"use strict";
// Everything that comes from the run is put in as text, never as markup.
(() => {
  const workspaces = [...document.querySelectorAll(".workspace")];
  const buttons = [...document.querySelectorAll("button[data-state]")];
  const search = document.querySelector("#search");
  const sideBySide = document.querySelector("#sides");
  const count = document.querySelector("#count");
  let wanted = "all";

  const make = (name, style, text) => {
    const made = document.createElement(name);
    if (style) made.className = style;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const workspace of workspaces) {
      const { state, find } = workspace.dataset;
      const fits = (wanted === "all" || (wanted === "changed" ? workspace.dataset.changed === "yes" : state === wanted))
        && words.every((word) => find.includes(word));
      workspace.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${workspaces.length}`;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.state === wanted));
  }

  // "a.txt a.txt" is one name, "a.txt b.txt" a rename.
  const nameOf = (names) => {
    const middle = (names.length - 1) / 2;
    return names.slice(0, middle) === names.slice(middle + 1) ? names.slice(0, middle) : names;
  };

  // A hunk's header says how many lines it has: what looks like a header inside of it is content.
  function* files(text) {
    let file = null, left = 0, right = 0, oldLine = 0, newLine = 0;
    for (const line of text.split("\n")) {
      if (left <= 0 && right <= 0) {
        if (line.startsWith("diff --git ")) {
          if (file) yield file;
          file = { name: nameOf(line.slice(11)), rows: [] };
          continue;
        }
        if (!file) continue;
        const hunk = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/.exec(line);
        if (hunk) {
          [oldLine, newLine] = [Number(hunk[1]), Number(hunk[3])];
          [left, right] = [hunk[2] === undefined ? 1 : Number(hunk[2]), hunk[4] === undefined ? 1 : Number(hunk[4])];
          file.rows.push({ kind: "hunk", text: line });
        } else if (line && !/^(index|---|\+\+\+) /.test(line)) file.rows.push({ kind: "note", text: line });
        continue;
      }
      const body = line.slice(1);
      if (line[0] === "-") { file.rows.push({ kind: "del", number: oldLine++, text: body }); left--; }
      else if (line[0] === "+") { file.rows.push({ kind: "add", number: newLine++, text: body }); right--; }
      else if (line[0] === "\\") file.rows.push({ kind: "note", text: line });
      else { file.rows.push({ kind: "same", number: oldLine++, other: newLine++, text: body }); left--; right--; }
    }
    if (file) yield file;
  }

  function row(oldNumber, oldText, oldStyle, newNumber, newText, newStyle) {
    const made = make("tr");
    made.append(make("td", "line", oldNumber), make("td", oldStyle, oldText), make("td", "line", newNumber), make("td", newStyle, newText));
    return made;
  }

  function fullRow(style, text) {
    const made = make("tr", style), cell = make("td", "", text);
    cell.colSpan = 4;
    made.append(cell);
    return made;
  }

  function tableOf(file) {
    const table = make("table", "sides"), columns = make("colgroup"), body = make("tbody");
    for (const style of ["line", "", "line", ""]) columns.append(make("col", style));
    let removed = [], added = [];
    const flush = () => {
      for (let i = 0; i < Math.max(removed.length, added.length); i++) {
        const [before, after] = [removed[i], added[i]];
        body.append(row(before ? before.number : "", before ? before.text : "", before ? "del" : "none",
          after ? after.number : "", after ? after.text : "", after ? "add" : "none"));
      }
      removed = []; added = [];
    };
    for (const each of file.rows) {
      if (each.kind === "del") { if (added.length) flush(); removed.push(each); }
      else if (each.kind === "add") added.push(each);
      else {
        flush();
        body.append(each.kind === "same" ? row(each.number, each.text, "", each.other, each.text, "") : fullRow("hunk", each.text));
      }
    }
    flush();
    table.append(make("caption", "", file.name), columns, body);
    return table;
  }

  function draw(workspace) {
    for (const unified of workspace.querySelectorAll("pre.diff")) {
      let tables = unified.nextElementSibling;
      if (sideBySide.checked && !(tables && tables.classList.contains("drawn"))) {
        tables = make("div", "drawn");
        for (const file of files(unified.textContent)) tables.append(tableOf(file));
        unified.after(tables);
      }
      if (tables && tables.classList.contains("drawn")) {
        tables.hidden = !sideBySide.checked;
        unified.hidden = sideBySide.checked;
      }
    }
  }

  function openNamed() {
    const named = location.hash && document.getElementById(location.hash.slice(1));
    if (named && named.classList.contains("workspace")) { named.hidden = false; named.open = true; named.scrollIntoView(); }
  }

  for (const workspace of workspaces) workspace.addEventListener("toggle", () => { if (workspace.open) draw(workspace); });
  for (const button of buttons) button.addEventListener("click", () => { wanted = button.dataset.state; filter(); });
  search.addEventListener("input", filter);
  sideBySide.addEventListener("change", () => workspaces.filter((each) => each.open).forEach(draw));
  window.addEventListener("hashchange", openNamed);
  // Beside the page there is something only where batchwright's own server gives it.
  if (location.protocol.startsWith("http")) document.querySelectorAll(".served").forEach((link) => { link.hidden = false; });
  document.querySelector(".tools").hidden = false;
  filter();
  openNamed();
})();
