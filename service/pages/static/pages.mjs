// What pages do beside showing themselves: times in the viewer's zone, copying, and (further down) timeline and player.
// Each page works without it, except for playing.

const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const instants = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

/** Times are written in UTC by the server; here they are moved to the viewer's zone. */
export function localTimes(root) {
  for (const time of root.querySelectorAll("time[data-local]")) {
    const at = new Date(time.dateTime);
    const exact = time.dataset.local === "instant";
    if (!exact) time.title = time.textContent;
    time.textContent = (exact ? instants : moments).format(at);
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
