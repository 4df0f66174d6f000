# Finds the code in a model's text as evalplus 0.3 does: the longest run of lines that is a program, and in it the
# imports and the definitions that the entry point uses.
import ast


def parse(text):
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def longest_program(text):
    lines = text.split("\n")
    written = [0]
    for line in lines:
        written.append(written[-1] + bool(line.strip()))
    best, span = 0, (0, 0)
    for start in range(len(lines)):
        # Candidates shorter than the best one need not be parsed.
        if written[-1] - written[start] <= best:
            break
        for end in range(start + 1, len(lines)):
            size = written[end + 1] - written[start]
            if size > best and parse("\n".join(lines[start : end + 1])) is not None:
                best, span = size, (start, end)
    return "\n".join(lines[span[0] : span[1] + 1])


def assigned_name(node):
    # The first plain name in an assignment: `a` in `a = b`, but `b` in `a.x = b`.
    if isinstance(node, ast.AnnAssign):
        parts = [node.target, node.value]
    else:
        parts = node.targets if len(node.targets) > 1 else [node.targets[0], node.value]
    for part in parts:
        if isinstance(part, ast.Name):
            return part.id
    return None


def names_within(node):
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant):
            continue
        for _, value in ast.iter_fields(inner):
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str):
                    found.update(name.split("."))
    return found


def definition(node):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        returns = any(isinstance(inner, ast.Return) for inner in ast.walk(node))
        return node.name if returns and not node.decorator_list else None
    if isinstance(node, ast.ClassDef):
        return node.name if not node.decorator_list else None
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return assigned_name(node)
    return None


def is_import(node):
    return isinstance(node, ast.Import) or isinstance(node, ast.ImportFrom) and node.module != "__future__"


def sanitize(text, entry_point):
    program = longest_program(text)
    tree = parse(program)
    imports, definitions = [], {}
    for node in tree.body if tree is not None else []:
        if is_import(node):
            imports.append(node)
        else:
            name = definition(node)
            if name is not None:
                definitions.setdefault(name, node)
    reached, queue = {entry_point}, [entry_point]
    while queue:
        node = definitions.get(queue.pop())
        for name in names_within(node) if node is not None else ():
            if name not in reached:
                reached.add(name)
                queue.append(name)
    kept = imports + [node for name, node in definitions.items() if name in reached]
    code = "\n".join(ast.get_source_segment(program, node) for node in kept).strip()
    return code or program, entry_point in definitions
