# Runs inside the sandbox: loads one program, calls it on inputs that arrive one at a time, writes tagged values.
#
# It has neither expected values nor verdicts. Whatever the program does to this interpreter, it can only affect what is
# written to the answer channel, which is checked outside.
import sys


def main():
    reader, writer = open(3, "rb"), open(4, "wb")
    names = {"__builtins__": {}, "set": set, "inf": float("inf"), "nan": float("nan")}
    nonce, mode, source, entry_point, path = eval(reader.readline(), names)
    sys.path[:] = path
    encode = encoder()
    evaluate = eval
    raise_stack_limit()

    def answer(tag, payload):
        writer.write(('["%s","%s",%s]\n' % (nonce, tag, payload)).encode())
        writer.flush()

    def failed(error):
        answer("raised", encode(describe(error)))

    if mode == "script":
        return run_script(source, answer, failed)
    try:
        scope = {}
        exec(compile(source, "<program>", "exec", dont_inherit=True), scope)
        function = scope[entry_point] if entry_point in scope else None
    except BaseException as error:
        return failed(error)
    answer("loaded", "true" if function is not None else "false")
    for line in reader:
        arguments = evaluate(line, names)
        try:
            value = encode(function(*arguments))
        except BaseException as error:
            failed(error)
        else:
            answer("value", value)


def run_script(source, answer, failed):
    import builtins

    module = type(sys)("__main__")
    module.__builtins__ = builtins
    sys.modules["__main__"] = module
    sys.argv[:] = ["program.py"]
    builtins.exit = builtins.quit = sys.exit
    try:
        exec(compile(source, "<program>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as error:
        if error.code is not None and error.code != 0:
            return failed(error)
    except BaseException as error:
        return failed(error)
    answer("ended", "null")


def describe(error):
    kind = type(error)
    try:
        text = "%s: %s" % (type.__dict__["__name__"].__get__(kind), str(error))
    except BaseException:
        text = "an exception that cannot be shown"
    return text[:300]


def raise_stack_limit():
    # Threads use the stack limit at the start as their stack size, so the main thread's limit is raised only now.
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
    except (ImportError, ValueError, OSError):
        pass


def encoder():
    # Everything is bound here, before the program runs, and the methods are those of the base classes: overrides in the
    # program, especially of `__eq__`, do not affect what is written.
    try:
        from _json import encode_basestring_ascii as quote
    except ImportError:
        from json.encoder import py_encode_basestring_ascii as quote
    modules, subclass, kind_of, integer_text = sys.modules, issubclass, type, hex
    integer, floating, string, truth = int, float, str, bool
    mapping, collections = dict, (("list", list), ("tuple", tuple), ("set", set), ("set", frozenset))
    array, kinds, plain = list, set, {int, float}
    special = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
    small = 1 << 53
    opaque = '["opaque"]'

    def sequence(tag, items, depth):
        return '["%s"%s]' % (tag, "".join([",%s" % encode(item, depth + 1) for item in items]))

    def numbers(items):
        # Long lists of plain numbers take most of the time. Their repr is correct, except for infinities and NaN.
        if not items or not kinds(map(kind_of, items)) <= plain:
            return None
        try:
            text = array.__repr__(items)[1:]
        except ValueError:
            return None
        return None if "n" in text else text

    def encode(value, depth=0):
        kind = kind_of(value)
        if value is None:
            return "null"
        if kind is truth:
            return "true" if value else "false"
        if depth > 60:
            return opaque
        try:
            if subclass(kind, integer):
                value = integer.__int__(value)
                return integer.__repr__(value) if -small < value < small else '["int","%s"]' % integer_text(value)
            if subclass(kind, floating):
                text = floating.__repr__(value)
                return special[text] if text in special else text
            if subclass(kind, string):
                text = string.__str__(value)
                string.encode(text, "utf-8")
                return quote(text)
            for tag, base in collections:
                if subclass(kind, base):
                    text = numbers(value) if kind is array else None
                    if text is not None:
                        return '["list",' + text
                    return sequence(tag, base.__iter__(value), depth)
            if subclass(kind, mapping):
                return sequence("dict", [item for pair in mapping.items(value) for item in pair], depth)
            numpy = modules.get("numpy")
            if numpy is not None and subclass(kind, numpy.generic):
                plain = numpy.generic.item(value)
                return opaque if subclass(kind_of(plain), numpy.generic) else encode(plain, depth + 1)
        except (MemoryError, RecursionError):
            raise
        except BaseException:
            return opaque
        return opaque

    return encode


main()
