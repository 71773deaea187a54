// What pages do beside showing themselves: times in the viewer's zone, copying, and (further down) timeline and player.
// Each page works without it, except for playing.

const clockTime = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const formats = {
  moment: new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" }),
  instant: new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" }),
  clock: clockTime,
};

/** Times are written in UTC by the server; here they are moved to the viewer's zone. */
export function localTimes(root) {
  for (const time of root.querySelectorAll("time[data-local]")) {
    const at = new Date(time.dateTime);
    if (time.dataset.local !== "instant") time.title = time.dateTime;
    time.textContent = formats[time.dataset.local].format(at);
    time.hidden = false;
  }
}

/** A button that copies what the element has that it names. */
function copying(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) {
    if (!navigator.clipboard) continue; // only where a page came over TLS, or from this machine
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
      const before = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = before; }, 2000);
    });
  }
}

localTimes(document);
copying(document);

/** A still that can't be had leaves its place to the words behind it. */
function stills(root) {
  for (const image of root.querySelectorAll("img[data-still]")) {
    const leave = () => { image.hidden = true; };
    if (image.complete && !image.naturalWidth) leave();
    image.addEventListener("error", leave);
  }
}

stills(document);

// --- timeline and player ---------------------------------------------------------------------------------------------

const S = 1000, MIN = 60 * S, HOUR = 60 * MIN;
/** How much of a recording a playlist lists at once; when it has played, the next one is loaded. */
const WINDOW_MS = HOUR;
/** Of a kept clip, in which gaps are few. */
const CLIP_WINDOW_MS = 6 * HOUR;
/** Stills while the pointer moves over the timeline: at most one in this time. */
const STILL_EVERY_MS = 150;
/** Live: how many segments behind the newest one hls.js plays, how fast it catches up, and from where on it leaps. */
const LIVE = { liveSyncDurationCount: 1.5, liveMaxLatencyDurationCount: 5, maxLiveSyncPlaybackRate: 1.25 };
/** A button of a kept clip that is narrower has no room for its name. */
const LEAST_NAME_PX = 70;
/** How long a still stays after the keyboard has moved the needle. */
const PEEK_MS = 2500;
const dayTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const startOfDay = (ms) => new Date(ms).setHours(0, 0, 0, 0);
/** Days are the viewer's: one has 23 or 25 hours when clocks are set. */
const startOfNextDay = (ms) => { const d = new Date(ms); d.setHours(0, 0, 0, 0); d.setDate(d.getDate() + 1); return d.getTime(); };
const forInput = (ms) => { const d = new Date(ms); return new Date(ms - d.getTimezoneOffset() * MIN).toISOString().slice(0, 19); };

/** What the player says until it has something to show. */
const LOADING = "Loading …", PRESS_PLAY = "Press Play to go on.";

/** Video of one camera: what is played, and which moment of the recording that is. */
class Playing {
  constructor(video, camera, hlsAddress, said, shows) {
    this.clip = null; // the number of the kept clip that is loaded; null: what is recorded
    this.video = video; this.camera = camera; this.hlsAddress = hlsAddress; this.said = said; this.shows = shows;
    this.token = ""; this.hls = null; this.from = null; this.to = null; this.speed = 1; this.live = false;
    this.native = !("MediaSource" in window || "ManagedMediaSource" in window);
    this.turn = 0;
  }

  /** Unix ms of the picture that shows; null when there is none. */
  at() {
    if (this.hls) {
      // hls.js's own `playingDate` stands still after a leap while the video is paused.
      const time = this.video.currentTime;
      const part = this.parts().find((one) => one.programDateTime !== null && one.start <= time && time < one.start + one.duration);
      if (part) return part.programDateTime + (time - part.start) * S;
      const date = this.hls.playingDate;
      return date ? date.getTime() : this.from;
    }
    if (this.native && this.video.getStartDate && this.video.currentSrc) {
      const start = this.video.getStartDate().getTime();
      if (Number.isFinite(start)) return start + this.video.currentTime * S;
    }
    return this.from;
  }

  /** Play [from, to) from its beginning; without `to` what comes in now. */
  async load(from, to, plays, clip = null) {
    const turn = ++this.turn;
    this.close();
    this.from = from; this.to = to; this.live = to === null; this.clip = clip;
    const range = this.live ? "" : `from=${Math.floor(from)}&to=${Math.ceil(to)}&`;
    const address = `${this.place(clip)}/playlist.m3u8?${range}token=${this.token}`;
    this.said(LOADING);
    if (this.native) {
      this.video.src = address;
      if (plays) this.video.play().catch(() => this.said(PRESS_PLAY));
    } else {
      const { default: Hls } = await import(this.hlsAddress);
      if (turn !== this.turn) return;
      const hls = this.hls = new Hls({ enableWorker: false, maxBufferLength: 30, backBufferLength: 60, ...(this.live ? LIVE : {}) });
      hls.on(Hls.Events.ERROR, (_, data) => { if (data.fatal) this.failed(data); });
      hls.on(Hls.Events.MANIFEST_PARSED, () => { if (plays) this.video.play().catch(() => this.said(PRESS_PLAY)); });
      hls.on(Hls.Events.FRAG_BUFFERED, this.shows);
      hls.loadSource(address);
      hls.attachMedia(this.video);
    }
    this.video.playbackRate = this.video.defaultPlaybackRate = this.live ? 1 : this.speed;
  }

  /** Where the API has what is recorded, or a kept clip. */
  place(clip) { return `/v1/devices/${this.camera}${clip === null ? "" : `/clips/${clip}`}`; }

  async failed(data) {
    this.close();
    let why = "The recording can't be played.";
    const address = data.response?.url || data.url || data.frag?.url || data.context?.url;
    if (address) {
      try { const answer = await fetch(address); if (!answer.ok) why = (await answer.json()).detail; } catch { /* what is said stays */ }
    }
    this.said(why);
  }

  /** What the playlist lists, as hls.js has it. */
  parts() { return this.hls?.levels?.[Math.max(this.hls.currentLevel, 0)]?.details?.fragments ?? []; }

  /** Go to a moment within what is loaded. Returns whether it is. */
  seek(ms) {
    for (const part of this.parts()) {
      const begin = part.programDateTime;
      if (begin !== null && begin <= ms && ms < begin + part.duration * S) {
        this.video.currentTime = part.start + (ms - begin) / S;
        return true;
      }
    }
    return false;
  }

  close() {
    if (this.hls) { this.hls.destroy(); this.hls = null; }
    if (this.native && this.video.src) { this.video.removeAttribute("src"); this.video.load(); }
  }
}

/** A camera's page: the player, a day's timeline, the calendar, and the range that is marked. */
class CameraPage {
  constructor(root) {
    this.root = root;
    const find = (name) => root.querySelector(`[data-${name}]`);
    this.camera = root.dataset.camera; this.base = root.dataset.base;
    /** Of a shared range: where it begins. There is no calendar then, and nothing live. */
    this.sharedFrom = Number(root.dataset.begin) || null;
    this.video = root.querySelector("video");
    this.timeline = find("timeline"); this.svg = this.timeline.querySelector("svg");
    this.spansGroup = find("spans"); this.marks = find("marks"); this.needle = find("needle");
    this.preview = find("preview"); this.clock = find("clock"); this.scale = find("scale");
    this.rangeForm = find("range"); this.fromInput = find("from"); this.toInput = find("to");
    this.deletedGroup = find("deleted"); this.lane = find("kept"); this.listLink = root.parentNode.querySelector("[data-list]");
    /** Kept clips that have something of the day, what was deleted of it, and the clip that plays. */
    this.kept = []; this.deleted = []; this.clip = null;
    this.daysGrid = find("days"); this.monthTitle = find("month");
    const message = find("message");
    this.said = (text) => { if (message.textContent !== text) message.textContent = text; };
    this.skew = Number(root.dataset.now) - Date.now();
    /** There is something to see: what the player said is over. What is said of the day is not. */
    this.shows = () => { if (message.textContent === LOADING || message.textContent === PRESS_PLAY) message.textContent = ""; };
    this.playing = new Playing(this.video, this.camera, root.dataset.hls, this.said, this.shows);
    this.playing.token = root.dataset.token;
    this.spans = []; this.stillAt = 0; this.wanted = null;
    this.video.muted = true;
    root.hidden = false;
    this.wire();
    const query = new URLSearchParams(location.search), asked = Number(query.get("at"));
    this.begin(this.sharedFrom ?? (Number.isSafeInteger(asked) && asked > 0 ? asked : null), Number(query.get("clip")));
  }

  now() { return Date.now() + this.skew; }

  async begin(asked, number) {
    await this.show(asked ?? this.now());
    const clip = this.kept.find((one) => one.clip === number && one.ready);
    if (clip) this.playClip(clip, asked, true);
    else if (asked === null && this.spans.length) {
      // The last minutes of what there is, ready and not playing.
      const last = this.spans[this.spans.length - 1];
      this.choose(Math.max(last[0], last[1] - 10 * S));
    } else if (asked !== null) this.choose(asked);
    if (this.daysGrid) await this.showMonth(this.day);
  }

  /** Show the day in which a moment lies. */
  async show(ms) {
    this.day = startOfDay(ms); this.dayEnd = startOfNextDay(ms);
    this.svg.setAttribute("viewBox", `0 0 ${this.length()} 40`);
    this.timeline.setAttribute("aria-valuemax", String(Math.round(this.length())));
    const day = this.day, found = await Promise.all([this.fetchSpans(this.day, this.dayEnd), this.fetchMarks()]);
    if (day !== this.day) return; // another day was asked for meanwhile
    [this.spans, { kept: this.kept, deleted: this.deleted }] = found;
    this.clip = this.kept.find((one) => one.clip === this.clip?.clip) ?? null;
    if (this.listLink) this.listLink.href = `${this.base}/list?from=${this.day}&to=${this.dayEnd}`;
    this.draw(); this.drawScale(); this.drawKept(); this.markDay();
  }

  async fetchMarks() {
    if (!this.lane) return { kept: [], deleted: [] };
    return this.ask(`${this.base}/marks?from=${this.day}&to=${this.dayEnd}`);
  }

  length() { return (this.dayEnd - this.day) / S; }
  x(ms) { return (ms - this.day) / S; }

  async ask(path) {
    const answer = await fetch(path, { headers: { Accept: "application/json" } });
    if (answer.redirected) { location.reload(); throw new Error("logged out"); }
    if (!answer.ok) { this.said("The timeline can't be had right now. Load the page again in a while."); throw new Error(answer.status); }
    return answer.json();
  }

  async fetchSpans(from, to) {
    const found = [];
    while (from !== null && from < to) {
      const told = await this.ask(`${this.base}/spans?from=${from}&to=${to}`);
      for (const [begin, end] of told.spans) {
        const last = found[found.length - 1];
        if (last && begin - last[1] <= S) last[1] = Math.max(last[1], end); else found.push([begin, end]);
      }
      this.playing.token = told.token; this.skew = told.now - Date.now();
      from = told.next;
    }
    return found;
  }

  draw() {
    const rect = (from, to, y = 0, height = 40) => {
      const made = document.createElementNS(this.svg.namespaceURI, "rect");
      made.setAttribute("x", this.x(from)); made.setAttribute("y", y); made.setAttribute("height", height);
      made.setAttribute("width", Math.max(to - from, this.leastMs()) / S);
      return made;
    };
    this.spansGroup.replaceChildren(...this.spans.map(([from, to]) => rect(from, to)));
    this.deletedGroup.replaceChildren(...this.deleted.map(([from, to]) => rect(from, to, 14, 12)));
    const from = Date.parse(this.fromInput?.value), to = Date.parse(this.toInput?.value);
    const marked = from < to && to > this.day && from < this.dayEnd;
    this.marks.replaceChildren(...(marked ? [rect(Math.max(from, this.day), Math.min(to, this.dayEnd))] : []));
    if (!this.spans.length && !this.kept.length) this.said("Nothing is recorded on this day.");
    else if (this.wanted === null) this.said("");
  }

  drawScale() {
    const steps = this.root.clientWidth < 560 ? 4 : 12;
    const texts = [];
    for (let i = 0; i <= steps; i++) {
      const span = document.createElement("span");
      const at = new Date(this.day + i * (this.dayEnd - this.day) / steps);
      span.textContent = i === steps ? "24:00" : `${String(at.getHours()).padStart(2, "0")}:${String(at.getMinutes()).padStart(2, "0")}`;
      texts.push(span);
    }
    this.scale.replaceChildren(...texts);
  }

  /** Kept clips are buttons below the timeline, in as many rows as overlap. */
  drawKept() {
    if (!this.lane) return;
    const least = 30 / Math.max(this.lane.parentNode.clientWidth, 200), rows = [];
    const items = this.kept.map((clip) => {
      const from = Math.max(0, this.x(clip.from)) / this.length(), width = Math.min(this.length(), this.x(clip.to)) / this.length() - from;
      const left = Math.max(0, Math.min(from, 1 - Math.max(width, least)));
      let row = rows.findIndex((end) => end <= left);
      if (row < 0) row = rows.push(0) - 1;
      rows[row] = left + Math.max(width, least);
      const item = document.createElement("li"), button = document.createElement("button"), name = clip.name || `Clip ${clip.clip}`;
      item.style.left = `${left * 100}%`; item.style.width = `${width * 100}%`; item.style.top = `${row * 1.9}rem`;
      button.type = "button"; button.disabled = !clip.ready;
      button.textContent = width * this.lane.parentNode.clientWidth < LEAST_NAME_PX ? "▸" : name;
      const times = `${dayTime.format(clip.from)} – ${dayTime.format(clip.to)}`;
      button.title = `${name}: ${times}`;
      button.setAttribute("aria-label", `${clip.ready ? "Play the kept clip" : "Being copied: the clip"} ${name}, ${times}`);
      if (this.clip?.clip === clip.clip) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => this.playClip(clip, clip.from, true));
      item.append(button);
      return item;
    });
    const focused = [...this.lane.children].findIndex((item) => item.contains(document.activeElement));
    this.lane.replaceChildren(...items);
    this.lane.style.height = `${rows.length * 1.9}rem`;
    this.lane.hidden = !items.length;
    items[focused]?.firstChild.focus();
  }

  /** What is pointed at: a moment of a recording, which is drawn wider than it lasts where it is short; else as it is. */
  pointed(ms) {
    for (const [from, to] of this.spans) if (from <= ms && ms < Math.max(to, from + this.leastMs())) return Math.min(ms, to - 1);
    return ms;
  }

  /** How much of the day the narrowest bar covers. */
  leastMs() { return (this.dayEnd - this.day) / 1500; }

  /** The moment, or where the next recording of the day begins; null when none does. */
  recorded(ms) {
    for (const [from, to] of this.spans) if (ms < to) return Math.max(ms, from);
    return null;
  }

  has(ms) { return this.spans.some(([from, to]) => from <= ms && ms < to); }

  /** The kept clip to show a moment from: the one that plays, or one where nothing is recorded any more. */
  clipAt(ms) {
    if (this.clip && this.clip.from <= ms && ms < this.clip.to) return this.clip;
    return this.has(ms) ? undefined : this.kept.find((one) => one.ready && one.from <= ms && ms < one.to);
  }

  setClip(clip) {
    if (this.clip?.clip === clip?.clip) return;
    this.clip = clip;
    this.drawKept();
  }

  playClip(clip, ms, plays) {
    this.setClip(clip);
    this.wanted = ms;
    this.point(ms);
    if (this.playing.clip === clip.clip && this.playing.seek(ms)) { this.said(""); if (plays) this.video.play().catch(() => {}); return; }
    this.playing.load(ms, Math.min(ms + CLIP_WINDOW_MS, clip.to), plays, clip.clip);
  }

  /** The first moment of the day that can be watched; undefined when there is none. */
  first() {
    const all = [...this.spans.map(([from]) => from), ...this.kept.filter((one) => one.ready).map((one) => Math.max(one.from, this.day))];
    return all.length ? Math.min(...all) : undefined;
  }

  /** Go to a moment, playing on if it plays. */
  choose(ms, plays = !this.video.paused) {
    const clip = this.clipAt(ms);
    if (clip) { this.playClip(clip, ms, plays); return; }
    this.setClip(null);
    const at = this.recorded(ms);
    this.wanted = at ?? ms;
    this.point(this.wanted);
    const later = at === null && this.kept.find((one) => one.ready && one.from >= ms);
    if (later) { this.playClip(later, later.from, plays); return; }
    if (at === null) { this.said(this.spans.length ? "Nothing is recorded after this, on this day." : "Nothing is recorded on this day."); return; }
    if (!this.playing.live && this.playing.clip === null && this.playing.seek(at)) { this.said(""); return; }
    this.playing.load(at, Math.min(at + WINDOW_MS, this.dayEnd), plays);
  }

  /** What follows when a window has played: across a gap, and into the next day. */
  async goOn() {
    const to = this.playing.to;
    if (to === null) return;
    if (this.clip) {
      if (to < this.clip.to) this.playClip(this.clip, to, true);
      else this.said("The kept clip has ended.");
      return;
    }
    if (to >= this.dayEnd) {
      if (this.dayEnd > this.now()) { this.said("That was the newest."); return; }
      await this.show(this.dayEnd);
    }
    const at = this.recorded(to);
    if (at === null) {
      if (this.dayEnd > this.now()) { this.said("That was the newest."); return; }
      this.playing.to = this.dayEnd;
      this.said("Nothing more is recorded on this day.");
      return;
    }
    this.choose(at, true);
  }

  point(ms) {
    const x = Math.max(0, Math.min(this.x(ms), this.length()));
    this.needle.setAttribute("x1", x); this.needle.setAttribute("x2", x);
    this.timeline.setAttribute("aria-valuenow", String(Math.round(x)));
    this.timeline.setAttribute("aria-valuetext", `${clockTime.format(ms)}, ${this.what(ms)}`);
    this.clock.textContent = this.clip ? `${this.clip.name || `Clip ${this.clip.clip}`}, ${dayTime.format(ms)}` : dayTime.format(ms);
  }

  /** What there is of a moment, in words. */
  what(ms) {
    const clip = this.clipAt(ms);
    if (clip) return `kept clip ${clip.name || clip.clip}`;
    if (this.has(ms)) return "recorded";
    return this.deleted.some(([from, to]) => from <= ms && ms < to) ? "deleted" : "nothing recorded";
  }

  tick() {
    const at = this.playing.at();
    if (at === null || this.video.readyState < 2 || this.video.seeking) return;
    this.wanted = at;
    if (this.playing.live && at >= this.dayEnd) this.show(at);
    this.point(at);
  }

  // --- the pointer, the keyboard, buttons ---

  momentAt(event) {
    const box = this.timeline.getBoundingClientRect();
    const part = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    return this.pointed(this.day + part * (this.dayEnd - this.day));
  }

  /** A still of what is pointed at, above the timeline.  `left`: where, in px from its left end. */
  peek(ms, left) {
    const box = this.timeline.getBoundingClientRect();
    const clip = this.clipAt(ms), has = Boolean(clip) || this.has(ms);
    const half = Math.min(this.preview.offsetWidth || 250, box.width) / 2;
    this.preview.hidden = false;
    this.preview.style.left = `${Math.max(half, Math.min(left, box.width - half))}px`;
    this.preview.querySelector("span").textContent = this.has(ms) ? clockTime.format(ms) : `${clockTime.format(ms)}, ${this.what(ms)}`;
    const image = this.preview.querySelector("img");
    image.hidden = !has;
    if (has && performance.now() - this.stillAt > STILL_EVERY_MS) {
      this.stillAt = performance.now();
      image.src = `${this.playing.place(clip?.clip ?? null)}/still.jpg?at=${Math.floor(ms)}&width=240&token=${this.playing.token}`;
    }
  }

  peekAt(event) { this.peek(this.momentAt(event), event.clientX - this.timeline.getBoundingClientRect().left); }

  /** With the keyboard the still stands where the needle is, for a while. */
  peekNeedle() {
    this.peek(this.wanted, this.x(this.wanted) / this.length() * this.timeline.clientWidth);
    clearTimeout(this.peekEnds);
    this.peekEnds = setTimeout(() => { this.preview.hidden = true; }, PEEK_MS);
  }

  wire() {
    const { timeline, video } = this;
    let dragging = false;
    timeline.addEventListener("pointerdown", (event) => { dragging = true; timeline.setPointerCapture(event.pointerId); this.peekAt(event); });
    timeline.addEventListener("pointermove", (event) => { this.peekAt(event); if (dragging) this.point(this.momentAt(event)); });
    timeline.addEventListener("pointerup", (event) => { if (dragging) this.choose(this.momentAt(event)); dragging = false; if (event.pointerType !== "mouse") this.preview.hidden = true; });
    timeline.addEventListener("pointercancel", () => { dragging = false; this.preview.hidden = true; });
    timeline.addEventListener("pointerleave", () => { this.preview.hidden = true; });
    this.preview.querySelector("img").addEventListener("error", (event) => { event.target.hidden = true; });
    timeline.addEventListener("keydown", (event) => {
      const at = this.wanted ?? this.day, step = event.shiftKey ? MIN : 10 * S, last = this.spans[this.spans.length - 1];
      const to = { ArrowLeft: at - step, ArrowDown: at - step, ArrowRight: at + step, ArrowUp: at + step, PageDown: at - HOUR, PageUp: at + HOUR,
        Home: this.first() ?? this.day, End: last ? Math.max(last[0], last[1] - 10 * S) : this.first() ?? this.day }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.choose(Math.max(this.day, Math.min(to, this.dayEnd - S)));
      this.peekNeedle();
    });
    timeline.addEventListener("blur", () => { this.preview.hidden = true; });
    const actions = {
      play: () => {
        if (!video.paused) return video.pause();
        if (!this.playing.hls && !video.currentSrc) { if (this.wanted !== null) this.choose(this.wanted, true); return; }
        video.play().catch(() => {});
      },
      back: () => this.wanted !== null && this.choose(this.wanted - 10 * S),
      on: () => this.wanted !== null && this.choose(this.wanted + 10 * S),
      sound: () => { video.muted = !video.muted; this.button("sound").setAttribute("aria-pressed", String(!video.muted)); },
      live: () => this.goLive(),
      "month-back": () => { const d = new Date(this.month); d.setMonth(d.getMonth() - 1); this.showMonth(d.getTime()); },
      "month-on": () => { const d = new Date(this.month); d.setMonth(d.getMonth() + 1); this.showMonth(d.getTime()); },
      "mark-from": () => this.mark(this.fromInput),
      "mark-to": () => this.mark(this.toInput),
    };
    for (const [name, act] of Object.entries(actions)) this.button(name)?.addEventListener("click", act);
    this.button("speed").addEventListener("change", (event) => {
      this.playing.speed = Number(event.target.value);
      if (!this.playing.live) video.playbackRate = video.defaultPlaybackRate = this.playing.speed;
    });
    const pressed = () => { const play = this.button("play"); play.textContent = video.paused ? "Play" : "Pause"; play.setAttribute("aria-pressed", String(!video.paused)); };
    video.addEventListener("play", pressed); video.addEventListener("pause", pressed);
    video.addEventListener("timeupdate", () => this.tick());
    video.addEventListener("ended", () => this.goOn());
    video.addEventListener("playing", this.shows);
    video.addEventListener("click", () => actions.play());
    this.root.querySelector("[data-jump]")?.addEventListener("submit", async (event) => {
      event.preventDefault();
      const at = Date.parse(event.target.querySelector("input").value);
      if (!Number.isFinite(at)) return;
      if (at < this.day || at >= this.dayEnd) await this.show(at);
      this.choose(at); timeline.focus();
    });
    this.fromInput?.addEventListener("change", () => this.draw());
    this.toInput?.addEventListener("change", () => this.draw());
    this.rangeForm?.addEventListener("submit", (event) => {
      const from = Date.parse(this.fromInput.value), to = Date.parse(this.toInput.value);
      if (!(from < to)) { event.preventDefault(); this.toInput.setCustomValidity("A range ends after it begins."); this.toInput.reportValidity(); return; }
      this.rangeForm.elements.from.value = String(from); this.rangeForm.elements.to.value = String(to);
    });
    this.toInput?.addEventListener("input", () => this.toInput.setCustomValidity(""));
    let width = 0;
    new ResizeObserver(([{ contentRect }]) => {
      if (!this.day || contentRect.width === width) return;
      width = contentRect.width;
      this.drawScale(); this.drawKept();
    }).observe(this.root);
    setInterval(() => this.refresh(), 15 * S);
  }

  button(name) { return this.root.querySelector(`[data-do="${name}"]`); }

  mark(input) {
    if (this.wanted === null) return;
    input.value = forInput(this.wanted);
    this.draw();
  }

  async goLive() {
    this.setClip(null);
    await this.show(this.now());
    this.wanted = this.now();
    this.playing.load(this.now(), null, true);
  }

  /** Today grows while the page is open. */
  async refresh() {
    if (!document.hidden && this.kept.some((one) => !one.ready)) {
      const day = this.day, marks = await this.fetchMarks();
      if (day === this.day) { this.kept = marks.kept; this.drawKept(); }
    }
    if (document.hidden || !this.day || this.now() < this.day || this.now() > this.dayEnd + MIN) return;
    const from = this.spans.length ? this.spans[this.spans.length - 1][0] : this.day;
    const day = this.day, news = await this.fetchSpans(from, this.dayEnd);
    if (day !== this.day) return;
    const begins = news.length ? news[0][0] : Infinity;
    this.spans = [...this.spans.filter(([, to]) => to <= begins && to <= from), ...news];
    this.draw();
  }

  // --- the calendar ---

  async showMonth(ms) {
    const first = new Date(ms); first.setHours(0, 0, 0, 0); first.setDate(1);
    this.month = first.getTime();
    const starts = [], day = new Date(first);
    while (day.getMonth() === first.getMonth()) { starts.push(day.getTime()); day.setDate(day.getDate() + 1); }
    starts.push(day.getTime());
    this.monthTitle.textContent = new Intl.DateTimeFormat(undefined, { month: "long", year: "numeric" }).format(first);
    const { days, kept } = await this.ask(`${this.base}/days?starts=${starts.join(",")}`);
    if (this.month !== first.getTime()) return;
    const names = new Intl.DateTimeFormat(undefined, { weekday: "short" }), cells = [];
    for (let i = 0; i < 7; i++) {
      const name = document.createElement("span");
      name.textContent = names.format(new Date(2024, 0, 1 + i)); // a Monday
      cells.push(name);
    }
    for (let i = 0; i < (first.getDay() + 6) % 7; i++) cells.push(document.createElement("span"));
    const long = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });
    days.forEach((has, i) => {
      const button = document.createElement("button");
      button.type = "button"; button.textContent = String(i + 1); button.dataset.day = String(starts[i]);
      button.setAttribute("aria-label", `${long.format(starts[i])}, ${has ? "has video" : "no video"}${kept[i] ? ", has a kept clip" : ""}`);
      button.classList.toggle("has", has); button.classList.toggle("kept", kept[i]);
      button.addEventListener("click", async () => {
        await this.show(starts[i]);
        const first = this.first();
        if (first === undefined) this.point(starts[i]);
        else this.choose(first);
      });
      cells.push(button);
    });
    this.daysGrid.replaceChildren(...cells);
    this.markDay();
  }

  markDay() {
    for (const button of this.daysGrid?.querySelectorAll("button") ?? []) {
      if (Number(button.dataset.day) === this.day) button.setAttribute("aria-current", "date");
      else button.removeAttribute("aria-current");
    }
  }
}

for (const root of document.querySelectorAll("[data-player]")) new CameraPage(root);

/** A part that is asked for again now and then: while the page is looked at, and nothing in it is being filled in. */
function freshening(root) {
  const part = root.querySelector("[data-fresh]");
  if (!part) return;
  setInterval(async () => {
    if (document.hidden || part.contains(document.activeElement) || part.querySelector("details[open]")) return;
    const from = part.dataset.from || location.href;
    const answer = await fetch(from, { headers: { Accept: "text/html" } }).catch(() => null);
    if (!answer || !answer.ok || answer.redirected) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-fresh]");
    if (!next) { location.assign(from); return; } // what it was asked for is done
    part.replaceChildren(...next.childNodes);
    localTimes(part);
  }, Number(part.dataset.fresh) * 1000);
}

freshening(document);
