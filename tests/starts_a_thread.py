"""A module that starts a thread when it is imported, after which a process must not be forked."""

import threading
import time

threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
