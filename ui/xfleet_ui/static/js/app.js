// The panel's own behaviour, on top of pages that work without it. One module per thing.
// htmx first and as a module: as classic deferred scripts its start-up timer could fire before its extension and our
// listeners stood, and then nothing ever connected the event stream.
import "../vendor/htmx@4.0.1/htmx.esm.min.js";
import "../vendor/htmx@4.0.1/hx-sse.min.js";
import { reveal } from "./reveal.js";
import { startTheme } from "./theme.js";
import { startCopy } from "./copy.js";
import { startDialog } from "./dialog.js";
import { startToasts } from "./toasts.js";
import { startLiveState } from "./live.js";
import { startForms } from "./forms.js";
import { startSearch } from "./search.js";
import { startCharts } from "./chart.js";
import { startLogs } from "./logs.js";

startTheme();
startCopy();
startDialog();
startToasts();
startLiveState();
startForms();
startSearch();
startCharts();
startLogs();
reveal(document);
document.addEventListener("htmx:after:settle", () => reveal(document));
