// Pages outside the panel's frame: signing in and errors.
import { startForms } from "./forms.js";

startForms();
