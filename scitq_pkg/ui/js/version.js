/** The version of a worker beside that of the server. */

import { el } from "./dom.js";

/** A worker's version; that it is another than the server's is told. */
export function versionNode(version, server) {
  if (!version || !server || version === server) return version ?? "–";
  return el("span", { class: "warn", title: `This worker is of version ${version}, the server of ${server}: start it anew with the same file` }, `${version}, not ${server}`);
}
