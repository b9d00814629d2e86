"""For all tests: what surrounds a run of the tests decides nothing.

Hypothesis draws what it likes, but a busy machine is no reason to fail. Settings of this service in the environment,
and proxies that no request to this machine may go through, are the developer's own. Nor are the tests a job in a
shell's background, for which Ctrl-C is ignored, by all that they start as well.
"""

import os
import signal

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")

# Now, not in a hook or a fixture: other conftests keep a copy of the environment for the processes that they start.
for name in [name for name in os.environ if name.startswith("ASR_")]:
    del os.environ[name]
for name in ("no_proxy", "NO_PROXY"):
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost", "::1")))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
