"""``python -m ledger DIR`` audits an export; ``python -m ledger receipt FILE`` checks a receipt,
``python -m ledger archive FILE`` the archive of all that a city holds about one person,
``python -m ledger rollup DIR`` what a province's cities signed since it last looked.

Exit code 0: everything held. 1: something did not, and the last line says what. 2: usage.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import time
from zipfile import BadZipFile, ZipFile

from ledger import archive, proof, rollup
from ledger.accounts import AccountKind
from ledger.audit import Report, audit
from ledger.encoding import commit, parse
from ledger.entries import Entry, Kind
from ledger.errors import LedgerError, Malformed, Unverified
from ledger.export import verifiers
from ledger.note import Verifier

BAR = 30  # characters of progress
UNTRUSTED = (
    "The log's key was taken from the export itself: this shows that the export agrees with\n"
    "itself, not who made it. Name the key you got elsewhere with --vkey."
)


def main(arguments: Sequence[str]) -> int:
    """Run the command of these arguments; the exit code."""
    try:
        if arguments[:1] == ["receipt"]:
            return _receipt(arguments[1:])
        if arguments[:1] == ["archive"]:
            return _archive(arguments[1:])
        if arguments[:1] == ["rollup"]:
            return _rollup(arguments[1:])
        return _audit(arguments)
    except LedgerError as error:
        _say(f"{error.code} {error}")
        return 1


def _audit(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ledger", description="Audit an export.")
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--since", type=Path, metavar="OLD_CHECKPOINT")
    parser.add_argument("--state", type=Path, metavar="FILE")
    parser.add_argument("--rules", default="scenarios", metavar="MODULE")
    parser.add_argument("--jobs", type=_jobs, default=1, metavar="N")
    parser.add_argument("--vkey", metavar="FILE_OR_KEY")
    options = parser.parse_args(arguments)
    trusted = _keys(parser, options.vkey)
    report = audit(
        options.directory,
        since=options.since,
        state=options.state,
        rules=options.rules,
        jobs=options.jobs,
        trusted=trusted,
        progress=_progress,
    )
    _say(*_table(report), "Everything holds.")
    if not trusted:
        _say(UNTRUSTED)
    return 0


def _table(report: Report) -> list[str]:
    head = report.head
    rows = [("log", head.origin), ("root", head.root.hex()), ("entries", str(head.size))]
    if report.resumed is not None:
        rows.append(("  audited before", f"{report.resumed}, openings were not looked at"))
    rows += [(f"  {kind}", str(count)) for kind, count in sorted(report.kinds.items())]
    rows += [("balances", str(report.balances)), ("scenario versions", str(report.versions))]
    if report.withdrawn:
        rows.append(("  withdrawn", f"{report.withdrawn} (they never took effect)"))
    if report.merchants:
        points = sum(redeemed for redeemed, _ in report.merchants.values())
        rows.append(("redeemed", f"{points} points, with merchants:"))
        rows += [
            (f"  {merchant}", f"{redeemed} points, {allowed} more allowed")
            for merchant, (redeemed, allowed) in report.merchants.items()
        ]
    if report.since is not None:
        rows.append(("extends the log of", f"{report.since} entries"))
    if report.recomputed is not None:
        rows.append(("claims recomputed", str(report.recomputed)))
        erased = report.issues - report.recomputed - report.missing
        rows.append(("  no opening", f"{erased} (their residents were erased)"))
        rows.append(("  no opening", f"{report.missing} (no erasure in this log says why)"))
    if report.opened is not None:
        rows.append(("administrators' acts", f"{report.opened}, each as its record says"))
    if report.digest is not None:
        rows.append(("state", f"sha256 {report.digest}"))
    return [f"{name:<20} {value}" for name, value in rows]


def _receipt(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ledger receipt")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--vkey", required=True, metavar="FILE_OR_KEY")
    parser.add_argument("--opening", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    trusted = _keys(parser, options.vkey)
    try:
        receipt = proof.Receipt.parse(options.file.read_bytes())
        if receipt.extra is None:
            raise Malformed("The receipt does not carry its entry.")
        head = proof.verify(receipt, receipt.extra, trusted)
        entry = Entry.parse(receipt.extra)
        lines = _words(entry, receipt.index)
        lines.append(f"Signed by {head.origin} in its log of {head.size} entries.")
        if options.opening:
            opening = _check_opening(entry, options.opening.read_bytes())
            lines += ["The opening is what the entry committed to.", f"  {opening}"]
    except OSError as error:
        _say(f"UNREADABLE {error.filename}: {error.strerror}.")
        return 1
    _say(*lines)
    return 0


def _archive(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ledger archive")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--vkey", required=True, metavar="FILE_OR_KEY")
    options = parser.parse_args(arguments)
    trusted = _keys(parser, options.vkey)
    try:
        with ZipFile(options.file) as packed:
            files = {name: packed.read(name) for name in packed.namelist()}
        manifest, receipts = archive.verify(files, trusted)
    except (OSError, BadZipFile) as error:
        _say(f"UNREADABLE {options.file}: {error}.")
        return 1
    _say(
        f"Archive of resident:{manifest.resident}, made at {manifest.at}.",
        f"{len(manifest.digests)} files are as {trusted[0].name} signed them,"
        f" {receipts} receipts among them hold.",
    )
    return 0


def _rollup(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ledger rollup")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--init", metavar="NAME")
    parser.add_argument("--jobs", type=_jobs, default=1, metavar="N")
    options = parser.parse_args(arguments)
    try:
        if options.init is not None:
            _say(*rollup.begin(options.folder, options.init))
            return 0
        rows = rollup.rollup(options.folder, int(time()), jobs=options.jobs, progress=_progress)
    except OSError as error:
        _say(f"UNREADABLE {error.filename}: {error.strerror}.")
        return 1
    _say((options.folder / rollup.TABLE).read_text().rstrip())
    return 1 if any(row.fault for row in rows) else 0


def _words(entry: Entry, index: int) -> list[str]:
    lines = [f"Entry {entry.id}, leaf {index}: {entry.kind} at {entry.at}."]
    for account, asset, bucket, amount in entry.postings:
        unit = "mg of CO2e" if asset == "CO2E" else "points"
        until = f" (bucket {bucket})" if bucket else ""
        lines.append(f"  {account.name} {amount:+} {unit}{until}")
    if any(line.account.kind is AccountKind.MERCHANT for line in entry.postings):
        lines.append("  (The merchant's line is its allowance: what it may still redeem.)")
    return lines


def _check_opening(entry: Entry, data: bytes) -> str:
    """What the entry committed to, from JSON with an opening and a salt (more is not looked at)."""
    match parse(data.strip()):
        case {"salt": str(salt), "opening": str(opening)}:
            pass
        case _:
            raise Malformed("An opening file is JSON with an opening and a salt, both strings.")
    try:
        made = commit(bytes.fromhex(salt), opening.encode())
    except ValueError as error:
        raise Malformed("The salt is not hex, or the opening is no text.") from error
    if entry.kind is not Kind.ISSUE or entry.detail.get("commitment") != made:
        raise Unverified("The opening is not what the entry committed to.")
    return opening


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"the number of processes is at least 1, not {text}")
    return int(text)


def _keys(parser: argparse.ArgumentParser, given: str | None) -> tuple[Verifier, ...]:
    if given is None:
        return ()
    try:
        path = Path(given)
        return verifiers(path.read_bytes() if path.is_file() else f"{given}\n".encode())
    except (LedgerError, OSError) as error:
        parser.error(f"--vkey: {error}")


def _progress(what: str, done: int, size: int) -> None:
    if sys.stderr.isatty():
        bar = "█" * (BAR * done // size)
        end = "\n" if done == size else ""
        sys.stderr.write(f"\r{bar:░<{BAR}} {done:,} of {size:,} {what}{end}")


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
