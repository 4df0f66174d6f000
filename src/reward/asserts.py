# Reads tests of the form `assert f(1, [2]) == 3`. Only literals are parsed; nothing is run.
import ast


def cases(texts):
    found = []
    for text in texts:
        for node in ast.parse(text).body:
            test = node.test if isinstance(node, ast.Assert) else None
            if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
                raise ValueError("no `assert f(...) == value`: " + ast.unparse(node)[:80])
            call = test.left
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
                raise ValueError("no call of a function with plain arguments: " + ast.unparse(node)[:80])
            arguments = [ast.literal_eval(it) for it in call.args]
            found.append((call.func.id, arguments, ast.literal_eval(test.comparators[0])))
    if len({name for name, _, _ in found}) > 1:
        raise ValueError("the tests call more than one function")
    return found
