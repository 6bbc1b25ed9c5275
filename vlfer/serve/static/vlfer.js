() => {
  if (window.vlferReady) return;
  window.vlferReady = true;

  // First visit, and light or dark. The browser remembers that the notice was read; nothing else is kept.
  const recall = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const keep = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private window */ } };
  const notice = () => document.querySelector(".vl-notice");
  const greet = (tries) => {
    const dialog = notice();
    if (!dialog && tries) return setTimeout(() => greet(tries - 1), 50);
    if (dialog && !recall("vlfer-notice-read")) dialog.showModal();
  };
  greet(100);
  if (recall("vlfer-theme")) document.body.classList.toggle("dark", recall("vlfer-theme") === "dark");

  const escaped = (text) => { const box = document.createElement("i"); box.textContent = text; return box.innerHTML; };
  const clock = (s) => { const t = Math.round(s * 10); return `${Math.floor(t / 600)}:${String(Math.floor(t / 10) % 60).padStart(2, "0")}.${t % 10}`; };
  const film = () => document.querySelector(".vl-film");
  const player = () => document.querySelector("#vl-video video");
  const facts = (root) => (root.vlferFacts ??= JSON.parse(root.dataset.film));

  // Show a moment of the timeline everywhere: playheads, values to assistive technology, scores.
  const show = (time, speak) => {
    const root = film();
    if (!root) return;
    const { start, end, names, tracks } = facts(root);
    const moment = Math.min(Math.max(time, start), end);
    root.dataset.now = moment;
    root.querySelectorAll(".vl-person").forEach((person) => {
      const strip = person.querySelector(".vl-strip");
      person.querySelector(".vl-now").style.left = `${(100 * (moment - start)) / (end - start || 1)}%`;
      strip.setAttribute("aria-valuenow", moment.toFixed(1));
      const track = tracks[person.dataset.track];
      const cell = track.start.findIndex((s, i) => moment >= s - 1e-6 && moment < track.end[i] + 1e-6);
      const readout = person.querySelector(".vl-readout");
      readout.setAttribute("aria-live", speak ? "polite" : "off");
      const ranked = cell < 0 ? [] : names.map((name, i) => [name, track.p[cell][i]]).sort((a, b) => b[1] - a[1]).slice(0, 6);
      strip.setAttribute("aria-valuetext", `${clock(moment)}: ${ranked.length ? `${ranked[0][0]} ${Math.round(100 * ranked[0][1])} %` : "face not seen"}`);
      const rows = ranked.map(([name, p], i) => `<tr class="${i ? "" : "is-chosen"}"><th scope="row">${escaped(name)}</th><td class="vl-track"><div><b style="width:${(100 * p).toFixed(1)}%;animation:none"></b></div></td><td class="vl-num">${Math.round(100 * p)}&nbsp;%</td></tr>`).join("");
      readout.innerHTML = `<p>At ${clock(moment)}</p>` + (rows ? `<table class="vl-bars"><colgroup><col class="vl-c1"/><col/><col class="vl-c3"/></colgroup><tbody>${rows}</tbody></table>` : "<p>This face is not seen here.</p>");
    });
  };
  const seek = (time) => { const video = player(); if (video) { video.pause(); video.currentTime = time; } show(time, true); };
  const at = (strip, event) => {
    const { start, end } = facts(film());
    const box = strip.getBoundingClientRect();
    return start + Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * (end - start);
  };

  let dragged = null;
  document.addEventListener("pointerdown", (event) => {
    const strip = event.target.closest?.(".vl-strip");
    if (strip) { dragged = strip; seek(at(strip, event)); }
  });
  document.addEventListener("pointermove", (event) => { if (dragged && event.buttons) seek(at(dragged, event)); });
  document.addEventListener("pointerup", () => { dragged = null; });
  document.addEventListener("keydown", (event) => {
    if (!event.target.classList?.contains("vl-strip")) return;
    const { start, end } = facts(film());
    const now = Number(film().dataset.now ?? start);
    const to = { ArrowLeft: now - 0.25, ArrowRight: now + 0.25, PageUp: now - 2, PageDown: now + 2, Home: start, End: end }[event.key];
    if (to !== undefined) { event.preventDefault(); seek(to); }
  });
  document.addEventListener("timeupdate", (event) => {
    if (event.target === player() && !event.target.paused) show(event.target.currentTime, false);
  }, true);

  document.addEventListener("click", (event) => {
    const jump = event.target.closest?.("[data-seek]");
    if (jump) seek(Number(jump.dataset.seek));
    const what = event.target.closest?.("[data-vl]")?.dataset.vl;
    if (what === "notice") notice().showModal();
    if (what === "agree") { keep("vlfer-notice-read", "yes"); notice().close(); }
    if (what === "theme") keep("vlfer-theme", document.body.classList.toggle("dark") ? "dark" : "light");
  });
}
