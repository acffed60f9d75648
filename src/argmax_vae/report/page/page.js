"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // The theme follows the system until the button is used; a browser that refuses storage forgets the choice.
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  try {
    const stored = localStorage.getItem("theme");
    if (stored === "dark" || stored === "light") root.dataset.theme = stored;
  } catch { /* no storage */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* no storage */ }
  });
  button.setAttribute("aria-label", "Change between light and dark");
  system.addEventListener("change", name);
  button.hidden = false;
  name();

  const unfold = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();

  // Runs: a heading sorts by its column, numbers by their means and missing ones last; the filter hides other rows.
  const table = document.getElementById("runs-table");
  if (table) {
    const body = table.tBodies[0];
    const number = (cell) => Number.parseFloat(cell.replace("−", "-"));
    const compare = (a, b) => {
      const [left, right] = [number(a), number(b)];
      if (Number.isNaN(left) !== Number.isNaN(right)) return Number.isNaN(left) ? 1 : -1;
      return Number.isNaN(left) ? a.localeCompare(b) : left - right;
    };
    const headings = [...table.tHead.rows[0].cells];
    for (const [column, heading] of headings.entries()) {
      const sort = document.createElement("button");
      sort.type = "button";
      sort.textContent = heading.textContent;
      heading.replaceChildren(sort);
      sort.addEventListener("click", () => {
        const descending = heading.getAttribute("aria-sort") === "ascending";
        const text = (row) => row.cells[column].textContent;
        const rows = [...body.rows].sort((a, b) => compare(text(a), text(b)) * (descending ? -1 : 1));
        body.replaceChildren(...rows);
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      });
    }
    document.getElementById("runs-filter").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/);
      const wanted = (text) => words.every((word) => text.toLowerCase().includes(word));
      for (const row of body.rows) {
        row.hidden = !wanted(row.textContent);
        const link = row.querySelector("a");
        if (link) document.getElementById(link.hash.slice(1)).hidden = row.hidden;
      }
    });
  }

  const element = (kind, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const text = (series, index) => {
    const width = series.half_width[index];
    const shown = series.mean[index].toFixed(2) + (width === null ? "" : ` ± ${width.toFixed(2)}`);
    return shown.replace("-", "−");
  };

  // As in page_charts.py: round values between low and high, and the ends of a series' intervals.
  const ticks = (low, high, number = 5) => {
    const size = (high - low) / number;
    const power = 10 ** Math.floor(Math.log10(size));
    const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= size * (1 - 1e-9));
    const found = [];
    for (let index = Math.ceil(low / step); index <= Math.floor(high / step); index += 1) {
      found.push(Number((index * step).toFixed(10)));
    }
    return found;
  };
  const ends = (one) => one.mean.map((mean, index) => [mean - one.half_width[index], mean + one.half_width[index]]);

  for (const chart of document.querySelectorAll(".chart")) {
    const { domain, box, series } = JSON.parse(chart.querySelector("script").textContent);
    const plot = chart.querySelector(".plot");
    const levels = plot.querySelector(".levels");
    const line = chart.querySelector(".epoch");
    const buttons = [...chart.querySelectorAll(".legend button")];
    const drawn = [...plot.querySelectorAll("g.series")];
    const epochs = [...new Set(series.flatMap((one) => one.epochs))].sort((a, b) => a - b);
    const x = (epoch) => box[0] + ((epoch - domain[0]) / (domain[1] - domain[0])) * (box[2] - box[0]);
    const y = (value) => box[3] - ((value - domain[2]) / (domain[3] - domain[2])) * (box[3] - box[1]);
    const isShown = (index) => buttons[index].getAttribute("aria-pressed") === "true";
    const cursor = element("path", { class: "cursor" });
    const clipped = drawn[0].parentNode;
    clipped.append(cursor);
    const dots = series.map((_, index) => {
      const dot = element("circle", { class: "at", r: 3.5 });
      drawn[index].append(dot);
      return dot;
    });
    let position = epochs.length - 1;

    const show = (active) => {
      const epoch = epochs[position];
      const values = series.map((one, index) => {
        const at = active ? one.epochs.indexOf(epoch) : one.epochs.length - 1;
        buttons[index].querySelector(".value").textContent = at < 0 ? "–" : text(one, at);
        dots[index].setAttribute("visibility", active && at >= 0 ? "inherit" : "hidden");
        if (at >= 0) {
          dots[index].setAttribute("cx", x(one.epochs[at]));
          dots[index].setAttribute("cy", y(one.mean[at]));
        }
        return isShown(index) && at >= 0 ? `${one.label} ${text(one, at)}` : "";
      });
      line.textContent = active ? `at epoch ${epoch}` : "each at its last epoch";
      cursor.setAttribute("visibility", active ? "visible" : "hidden");
      cursor.setAttribute("d", `M${x(epoch)},${box[1]}V${box[3]}`);
      plot.setAttribute("aria-valuenow", epoch);
      plot.setAttribute("aria-valuetext", `epoch ${epoch}: ${values.filter(Boolean).join("; ")}`);
    };
    const path = (points) => `M${points.map(([epoch, value]) => `${x(epoch)},${y(value)}`).join("L")}`;
    const rescale = () => {
      const drawnValues = series.filter((_, index) => isShown(index)).flatMap((one) =>
        ends(one).filter((_, index) => one.epochs[index] >= one.epochs[one.epochs.length - 1] / 5).flat());
      if (!drawnValues.length) return;
      const [low, high] = [Math.min(...drawnValues), Math.max(...drawnValues)];
      const margin = 0.05 * (high - low) || 1;
      [domain[2], domain[3]] = [low - margin, high + margin];
      levels.replaceChildren(...ticks(domain[2], domain[3]).flatMap((value) => {
        const label = element("text", { x: box[0] - 6, y: y(value) + 4, "text-anchor": "end" });
        label.textContent = String(value).replace("-", "−");
        return [element("path", { class: "grid", d: `M${box[0]},${y(value)}H${box[2]}` }), label];
      }));
      for (const [index, one] of series.entries()) {
        const interval = ends(one);
        const upper = one.epochs.map((epoch, at) => [epoch, interval[at][1]]);
        const lower = one.epochs.map((epoch, at) => [epoch, interval[at][0]]);
        drawn[index].querySelector(".band").setAttribute("d", `${path([...upper, ...lower.reverse()])}Z`);
        drawn[index].querySelector(".line").setAttribute("d", path(one.epochs.map((epoch, at) => [epoch, one.mean[at]])));
        for (const [at, dot] of drawn[index].querySelectorAll("circle:not(.at)").entries()) {
          dot.setAttribute("cy", y(one.mean[at]));
        }
      }
    };
    const move = (to) => {
      position = Math.max(0, Math.min(epochs.length - 1, to));
      show(true);
    };
    const point = (event) => {
      const bounds = plot.getBoundingClientRect();
      const at = ((event.clientX - bounds.left) / bounds.width) * plot.viewBox.baseVal.width;
      const epoch = domain[0] + ((at - box[0]) / (box[2] - box[0])) * (domain[1] - domain[0]);
      const distances = epochs.map((one) => Math.abs(one - epoch));
      move(distances.indexOf(Math.min(...distances)));
    };

    plot.setAttribute("role", "slider");
    plot.setAttribute("tabindex", "0");
    plot.setAttribute("aria-orientation", "horizontal");
    plot.setAttribute("aria-valuemin", epochs[0]);
    plot.setAttribute("aria-valuemax", epochs[epochs.length - 1]);
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") show(document.activeElement === plot);
    });
    plot.addEventListener("focus", () => show(true));
    plot.addEventListener("blur", () => show(false));
    plot.addEventListener("keydown", (event) => {
      const steps = {
        ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity,
      };
      if (event.key in steps) {
        event.preventDefault();
        move(position + steps[event.key]);
      }
    });
    for (const [index, entry] of buttons.entries()) {
      entry.addEventListener("click", () => {
        entry.setAttribute("aria-pressed", !isShown(index));
        drawn[index].classList.toggle("off", !isShown(index));
        rescale();
        show(document.activeElement === plot);
      });
    }
    show(false);
  }
})();
