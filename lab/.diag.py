import traceback
from pydamon.primitives import vmemmap as v
from pydamon.primitives import bpf_facts
import inspect
print([n for n in dir(bpf_facts) if not n.startswith("_")])
