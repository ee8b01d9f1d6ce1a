"""The clinic of lesson 13: ten patients with symptoms, probes to ask for, and a chart of how few were needed.

p = clinic.admit(3)
p.symptoms()                          what everybody sees
p.ask("range of the data")            one probe of the doctor, which counts; clinic.PROBES lists them
p.diagnose("pixels in [0, 1]")        clinic.BUGS lists the diagnoses; the right one shows the ill function
p.treat(repaired)                     the patient with your function
clinic.chart()
"""

from .bugs import BUGS
from .ward import PROBES, Chart, Patient, admit, chart

__all__ = ["BUGS", "PROBES", "Chart", "Patient", "admit", "chart"]
