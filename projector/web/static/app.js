"use strict";
// Keeps a page as it is on the server, and follows a log. No library; text nodes only.
(() => {
  document.documentElement.classList.add("js");
  const policy = window.trustedTypes
    ? window.trustedTypes.createPolicy("tailrace", { createHTML: (html) => html })
    : { createHTML: (html) => html };

  // ------------------------------------------------------------------ times

  const span = (ms) => {
    const s = Math.floor(ms / 1000);
    if (s < 10) return (Math.max(ms, 0) / 1000).toFixed(1) + " s";
    if (s < 60) return s + " s";
    if (s < 3600) return Math.floor(s / 60) + " min " + String(s % 60).padStart(2, "0") + " s";
    return Math.floor(s / 3600) + " h " + String(Math.floor(s / 60) % 60).padStart(2, "0") + " min";
  };
  const ago = (ms) => {
    const s = Math.floor(Math.max(ms, 0) / 1000);
    if (s >= 86400) return Math.floor(s / 86400) + (s >= 172800 ? " days ago" : " day ago");
    if (s >= 3600) return Math.floor(s / 3600) + " h ago";
    if (s >= 60) return Math.floor(s / 60) + " min ago";
    return s > 4 ? s + " s ago" : "now";
  };
  const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const tick = () => {
    const now = Date.now();
    for (const e of document.querySelectorAll("[data-since]")) setText(e, span(now - e.dataset.since));
    for (const e of document.querySelectorAll("[data-ago]")) setText(e, ago(now - e.dataset.ago));
  };
  setInterval(tick, 1000);

  // ------------------------------------------------------------------ parts of a page

  const plain = (element) => {
    const copy = element.cloneNode(true);
    for (const e of copy.querySelectorAll("[data-since], [data-ago]")) e.textContent = "";
    for (const e of copy.querySelectorAll("details[open]")) e.removeAttribute("open");
    return copy.outerHTML;
  };
  const exchange = (fresh) => {
    for (const part of document.querySelectorAll("[data-part]")) {
      const next = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
      if (!next || plain(part) === plain(next)) continue;
      const open = new Set([...part.querySelectorAll("li[id] > details[open]")].map((d) => d.parentNode.id));
      const focused = part.contains(document.activeElement) && document.activeElement.getAttribute("href");
      const scroll = part.scrollTop;
      part.replaceWith(document.adoptNode(next));
      for (const id of open) {
        const item = document.getElementById(id);
        if (item) item.querySelector("details").open = true;
      }
      if (focused) {
        const again = [...next.querySelectorAll("a[href]")].find((a) => a.getAttribute("href") === focused);
        if (again) again.focus({ preventScroll: true });
      }
      next.scrollTop = scroll;
    }
    document.title = fresh.title;
    // a page that had no attempt or job yet gets its log when there is one
    if (Boolean(fresh.querySelector("[data-log]")) !== Boolean(document.querySelector("[data-log]"))
      || Boolean(fresh.querySelector(".split")) !== Boolean(document.querySelector(".split"))) location.reload();
  };
  let loading = false;
  let again = false;
  const reload = async () => {
    if (loading) { again = true; return; }
    loading = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", headers: { Accept: "text/html" } });
      if (answer.redirected && new URL(answer.url).pathname === "/login") location.reload();
      else if (answer.ok) exchange(new DOMParser().parseFromString(policy.createHTML(await answer.text()), "text/html"));
    } catch { /* the stream says when the server is back */ }
    loading = false;
    if (again) { again = false; setTimeout(reload, 150); }
  };
  const stream = document.body.dataset.stream;
  if (stream) {
    const shown = document.querySelector("[data-live-state]");
    const state = (name, text) => {
      if (!shown) return;
      shown.hidden = false;
      shown.dataset.state = name;
      shown.lastElementChild.textContent = text;
    };
    const watch = () => {
      const source = new EventSource(stream);
      source.onopen = () => { state("live", "Live"); reload(); };
      source.onerror = () => {
        state("away", "Reconnecting…");
        // a refusal (the database is away) is final for EventSource, not for us
        if (source.readyState === EventSource.CLOSED) setTimeout(watch, 2000);
      };
      source.addEventListener("run", reload);
    };
    watch();
  }
  for (const form of document.querySelectorAll("[data-submit-on-change]")) {
    form.addEventListener("change", () => form.submit());
  }

  // ------------------------------------------------------------------ ANSI colours

  const SGR = /\x1b\[([0-9;]*)m/g;
  // everything else that a terminal would obey: other CSI, OSC, single escapes, control characters
  const OTHER = /\x1b\[[0-?]*[ -/]*[@-ln-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[^[\]]|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]/g;
  const styled = (style, code) => {
    if (code === 0) return {};
    const next = { ...style };
    if (code === 1) next.b = "b"; else if (code === 2) next.d = "d"; else if (code === 3) next.i = "i";
    else if (code === 4) next.u = "u"; else if (code === 22) { delete next.b; delete next.d; }
    else if (code === 23) delete next.i; else if (code === 24) delete next.u;
    else if (code === 39) delete next.f; else if (code === 49) delete next.g;
    else if (code >= 30 && code <= 37) next.f = "f" + (code - 30);
    else if (code >= 90 && code <= 97) next.f = "f" + (code - 90);
    else if (code >= 40 && code <= 47) next.g = "g" + (code - 40);
    else if (code >= 100 && code <= 107) next.g = "g" + (code - 100);
    return next;
  };
  const codes = (style, list) => {
    const numbers = list === "" ? [0] : list.split(";").map(Number);
    for (let i = 0; i < numbers.length; i++) {
      // 256 and true colours: the next numbers are theirs
      if (numbers[i] === 38 || numbers[i] === 48) { i += numbers[i + 1] === 5 ? 2 : 4; continue; }
      style = styled(style, numbers[i]);
    }
    return style;
  };
  const put = (parent, text, style) => {
    const clean = text.replace(OTHER, "").replace(/\x1b/g, "");
    if (!clean) return;
    const names = Object.values(style).join(" ");
    if (!names) { parent.append(clean); return; }
    const element = document.createElement("span");
    element.className = names;
    element.append(clean);
    parent.append(element);
  };
  const paint = (parent, text) => {
    // what a progress bar overwrote is not shown
    const kept = text.replace(/\r+$/, "");
    const bar = kept.lastIndexOf("\r");
    const shown = bar < 0 ? kept : kept.slice(bar + 1);
    if (!shown.includes("\x1b")) { put(parent, shown, {}); return; }
    let style = {};
    let from = 0;
    for (const match of shown.matchAll(SGR)) {
      put(parent, shown.slice(from, match.index), style);
      style = codes(style, match[1]);
      from = match.index + match[0].length;
    }
    put(parent, shown.slice(from), style);
  };

  // ------------------------------------------------------------------ the log

  const TAIL = 5000;
  const CHUNK = 200;
  const ROW_PX = 19;
  const log = document.querySelector("[data-log]");
  if (!log) return;
  const base = log.dataset.log;
  const box = log.querySelector("[data-log-lines]");
  const said = log.querySelector("[data-log-state]");
  const earlier = log.querySelector("[data-log-earlier]");
  const jump = log.querySelector("[data-log-end]");
  const count = Number(log.dataset.lines);
  const wanted = /^#L(\d+)$/.exec(location.hash);
  let first = Math.max(0, count - TAIL);
  if (wanted) first = Math.min(first, Math.max(0, Number(wanted[1]) - 200));
  let following = !wanted;
  let waiting = [];
  let frame = 0;
  let next = first;
  let source = null;

  // what commands became in the log (`##[error]…`), in words instead of marks
  const MARK = /^##\[(group|endgroup|error|warning|notice|debug|command|section)\]/;
  const WORDS = { error: "Error", warning: "Warning", notice: "Notice", debug: "Debug", command: "Command", section: "Section" };
  const row = (line, tag = "div") => {
    const mark = MARK.exec(line.text);
    const kind = mark ? mark[1] : "";
    const element = document.createElement(tag);
    element.className = line.s === "out" ? "l" : "l " + line.s;
    if (kind) element.classList.add("k-" + kind);
    element.id = "L" + (line.n + 1);
    const number = document.createElement("a");
    number.className = "n";
    number.href = "#L" + (line.n + 1);
    number.tabIndex = -1;
    number.textContent = String(line.n + 1);
    const text = document.createElement("span");
    text.className = "x";
    const time = document.createElement("span");
    time.className = "t";
    time.textContent = new Date(line.t).toISOString().slice(11, 23);
    text.append(time);
    if (WORDS[kind]) {
      const word = document.createElement("span");
      word.className = kind === "command" || kind === "section" ? "visually-hidden" : "k";
      word.textContent = WORDS[kind] + ": ";
      text.append(word);
    }
    let shown = mark ? line.text.slice(mark[0].length) : line.text;
    // a message of several lines is one line in the log
    if (kind === "error" || kind === "warning" || kind === "notice" || kind === "debug") shown = shown.replace(/%0A/g, "\n");
    if (kind === "group" && !shown.trim()) shown = "Group";
    for (const [i, part] of shown.split("\n").entries()) { if (i) text.append("\n"); paint(text, part); }
    element.append(number, text);
    return element;
  };
  // Puts rows where they belong: groups are flat; one ends at its end mark, where the next begins,
  // or with its step. `into` is a place in the box; `lead` are the rows before the first mark, which
  // belong to a group whose title is not loaded yet.
  class Rows {
    constructor(before) { this.before = before; this.chunk = null; this.group = null; this.step = null; this.firstStep = null; this.lead = []; this.leading = true; }
    place(element) {
      const parent = this.group ? this.group.lastElementChild : box;
      parent.insertBefore(element, this.group ? null : this.before);
    }
    add(line) {
      const mark = MARK.exec(line.text);
      const kind = mark ? mark[1] : "";
      if (this.step !== null && line.step !== this.step) this.end();
      this.step = line.step;
      this.firstStep ??= line.step;
      if (kind === "endgroup") { this.end(); return; }
      if (kind === "group") {
        this.end();
        const group = document.createElement("details");
        group.className = "group";
        const body = document.createElement("div");
        body.className = "group-lines";
        group.append(row(line, "summary"), body);
        group.open = unfolded;
        this.place(group);
        this.group = group;
        return;
      }
      if (!this.chunk || this.chunk.childElementCount >= CHUNK) {
        this.close();
        this.chunk = document.createElement("div");
        this.chunk.className = "chunk";
        if (this.leading) this.lead.push(this.chunk);
        this.place(this.chunk);
      }
      this.chunk.append(row(line));
      if (this.group && (kind === "error" || kind === "warning")) this.group.classList.add("has-" + kind);
    }
    // from now on it is drawn only when it is seen, and takes about its room until then
    close() {
      if (!this.chunk) return;
      this.chunk.style.containIntrinsicSize = `auto ${this.chunk.childElementCount * ROW_PX}px`;
      this.chunk.classList.add("done");
      this.chunk = null;
    }
    end() { this.close(); this.group = null; this.leading = false; }
    hole(count) {
      this.end();
      const note = document.createElement("div");
      note.className = "hole";
      note.textContent = `${count} lines are missing here`;
      this.place(note);
    }
  }
  let unfolded = false;
  const rows = new Rows(null);
  let lead = rows;
  const draw = () => {
    frame = 0;
    const lines = waiting;
    waiting = [];
    for (const line of lines) { if (line.hole) rows.hole(line.hole.lines); else rows.add(line); }
    foldable();
    if (following) box.scrollTop = box.scrollHeight;
    if (wanted && !draw.found) {
      // rows come in order: if only the next is there, the line is the end of a group
      const there = document.getElementById("L" + wanted[1]) || document.getElementById("L" + (Number(wanted[1]) + 1));
      if (there) { draw.found = true; reveal(there); there.classList.add("here"); there.scrollIntoView({ block: "center" }); }
    }
  };
  const reveal = (element) => {
    const group = element.closest("details.group");
    if (group) group.open = true;
  };
  const fold = log.querySelector("[data-log-groups]");
  const foldable = () => { fold.hidden = !box.querySelector("details.group"); };
  fold.addEventListener("click", () => {
    unfolded = !unfolded;
    for (const group of box.querySelectorAll("details.group")) group.open = unfolded;
    fold.setAttribute("aria-pressed", String(unfolded));
  });
  const later = () => { if (!frame) frame = requestAnimationFrame(draw); };
  const say = (text) => { said.textContent = text; };
  const lines = (n) => n.toLocaleString("en") + (n === 1 ? " line" : " lines");

  const open = () => {
    source = new EventSource(`${base}/stream?from_line=${next}`);
    source.addEventListener("lines", (event) => {
      const data = JSON.parse(event.data);
      for (const line of data.lines) if (line.n >= next) waiting.push(line);
      next = Math.max(next, data.first_line + data.lines.length);
      say(lines(next) + ", live");
      later();
    });
    source.addEventListener("hole", (event) => { waiting.push({ hole: JSON.parse(event.data) }); later(); });
    source.addEventListener("problem", (event) => { say(JSON.parse(event.data).detail); source.close(); });
    source.addEventListener("end", (event) => {
      const data = JSON.parse(event.data);
      source.close();
      if (!data.complete) say(`${lines(data.lines)}; not complete: ${data.detail || "lines are missing"}`);
      else if (data.lines) say(`${lines(data.lines)}, complete`);
      else say("No output");
    });
    source.onopen = () => { if (next === 0 || next === first) say(next ? lines(next) + ", live" : "Waiting for the first line…"); };
    source.onerror = () => {
      // EventSource comes back by itself after a break, not after a refusal
      if (source.readyState === EventSource.CLOSED) { say("Not to be had now; trying again…"); setTimeout(open, 2000); } else say("Reconnecting…");
    };
  };

  box.addEventListener("scroll", () => {
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    following = atEnd;
    jump.hidden = atEnd;
  }, { passive: true });
  jump.addEventListener("click", () => { following = true; box.scrollTop = box.scrollHeight; box.focus(); });
  log.querySelector("[data-log-times]").addEventListener("click", (event) => {
    const on = box.classList.toggle("times");
    event.currentTarget.setAttribute("aria-pressed", String(on));
  });
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element && event.target.closest("[data-line]");
    if (!link) return;
    let target = document.getElementById("L" + (Number(link.dataset.line) + 1));
    // the line may be the end of a group, which is not shown
    if (!target) target = document.getElementById("L" + (Number(link.dataset.line) + 2));
    if (!target) return;
    event.preventDefault();
    following = false;
    reveal(target);
    history.replaceState(null, "", link.getAttribute("href"));
    for (const old of box.querySelectorAll(".here")) old.classList.remove("here");
    target.classList.add("here");
    target.scrollIntoView({ block: "start" });
  });
  earlier.hidden = first === 0;
  earlier.addEventListener("click", async () => {
    const from = Math.max(0, first - TAIL);
    earlier.disabled = true;
    const source = new EventSource(`${base}/stream?from_line=${from}`);
    const found = [];
    const done = () => {
      source.close();
      const height = box.scrollHeight;
      const older = new Rows(earlier.nextSibling);
      for (const line of found) older.add(line);
      if (older.group && older.step === lead.firstStep) {
        for (const chunk of lead.lead) older.group.lastElementChild.append(chunk);
        if (lead.leading) lead.group = older.group;
      }
      if (older.leading) older.lead.push(...lead.lead);
      lead = older;
      foldable();
      box.scrollTop += box.scrollHeight - height;
      first = from;
      earlier.hidden = first === 0;
      earlier.disabled = false;
    };
    source.addEventListener("lines", (event) => {
      for (const line of JSON.parse(event.data).lines) if (line.n < first) found.push(line);
      if (found.length >= first - from) done();
    });
    source.addEventListener("end", done);
    source.onerror = done;
  });
  open();
})();
