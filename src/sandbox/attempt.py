# Attempts forbidden operations and lists the ones that succeeded. Run once to check that the layers work.
def attempt():
    import os
    import socket

    found = []

    def succeeds(name, act):
        try:
            act()
        except OSError:
            return
        found.append(name)

    def forks():
        if os.fork() == 0:
            os._exit(0)
        os.wait()

    succeeds("read a file of the system", lambda: open("/etc/passwd").read())
    succeeds("write a file", lambda: open("/rft-sandbox-attempt", "w").close())
    succeeds("list processes", lambda: os.listdir("/proc"))
    succeeds("start a process", forks)
    succeeds("open a socket", lambda: socket.socket())
    return found
