#!/usr/bin/env python3
"""Adds up test results.

results.py junit SUITE EXIT_CODE XML [SANITIZER_LOG...]
    prints one line "passed|failed|skipped<TAB>SUITE<TAB>NAME<TAB>DETAIL" for each test of a Criterion or
    pytest report. A program that ended badly without a failing test in its report is a failed test itself:
    a crash before the report, or a leak found after it, must not pass.
results.py total RESULTS SUITE...
    names each failed test, then prints "N passed, N failed" as the last line; exit code 1 when a test
    failed or a suite ran none.
"""
import os
import sys
import xml.etree.ElementTree as ET


def one_line(text, limit=300):
    return " ".join((text or "").split())[:limit]


def case_result(case):
    for tag in ("failure", "error"):
        found = case.find(tag)
        if found is not None:
            return "failed", one_line(found.text or found.get("message"))
    status = case.get("status", "")
    if status in ("FAILED", "ERRORED"):
        return "failed", status
    if case.find("skipped") is not None or status == "SKIPPED":
        return "skipped", ""
    return "passed", ""


def read_cases(path):
    """Yields (status, name, detail). Criterion names the suite in <testsuite>, pytest in classname."""
    root = ET.parse(path).getroot()
    suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
    for suite in suites:
        for case in suite.findall("testcase"):
            group = case.get("classname") or suite.get("name") or ""
            status, detail = case_result(case)
            yield status, f"{group}::{case.get('name')}", detail


def junit(suite, exit_code, xml, sanitizer_logs):
    rows = []
    program = os.path.basename(xml).removesuffix(".xml")
    try:
        rows = list(read_cases(xml))
    except (OSError, ET.ParseError) as error:
        rows.append(("failed", program, f"no report (exit code {exit_code}): {one_line(str(error))}"))
    if not any(status == "failed" for status, _, _ in rows):
        for log in sanitizer_logs:
            with open(log, errors="replace") as file:
                text = file.read()
            head = next((line for line in text.splitlines() if "ERROR" in line or "WARNING" in line or
                         "runtime error" in line), text)
            rows.append(("failed", f"{program}: sanitizer report", one_line(head)))
    if exit_code != 0 and not any(status == "failed" for status, _, _ in rows):
        # pytest's 5 means that no test was collected, which the total reports by suite.
        if exit_code != 5:
            rows.append(("failed", program, f"exit code {exit_code} without a failed test"))
    for status, name, detail in rows:
        print(status, suite, name, detail, sep="\t")


def total(path, suites):
    rows = []
    with open(path, errors="replace") as file:
        for line in file:
            rows.append((line.rstrip("\n").split("\t") + ["", "", ""])[:4])
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for status, suite, name, detail in rows:
        counts[status] += 1
        if status == "failed":
            print(f"FAILED {suite}: {name}" + (f"  {detail}" if detail else ""))
    for suite in suites:
        if not any(row[1] == suite and row[0] in ("passed", "failed") for row in rows):
            print(f"FAILED {suite}: the suite ran no test")
            counts["failed"] += 1
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    print(f"{counts['passed']} passed, {counts['failed']} failed{skipped}")
    return 1 if counts["failed"] or not counts["passed"] else 0


def main(argv):
    if len(argv) >= 5 and argv[1] == "junit":
        junit(argv[2], int(argv[3]), argv[4], argv[5:])
        return 0
    if len(argv) >= 3 and argv[1] == "total":
        return total(argv[2], argv[3:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
