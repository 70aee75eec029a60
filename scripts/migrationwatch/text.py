"""
What migration-watch says about a migration, in words and numbers.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from typing import Any, Optional

from .record import Pass, Record

_BAR_WIDTH = 20


def printable(text: str) -> str:
    """The text without what could control a terminal, or break a line."""
    return ''.join(c if c.isprintable() else '?' for c in text)


def size(count: float) -> str:
    """Bytes, in words."""
    unit = 'B'
    for bigger in ('KiB', 'MiB', 'GiB', 'TiB'):
        # as it will be rounded
        if count < 999.5:
            break
        count /= 1024
        unit = bigger
    return f'{count:.0f} {unit}' if count >= 99.95 or unit == 'B' \
        else f'{count:.1f} {unit}'


def rate(count: float) -> str:
    """Bytes per second, in words."""
    return size(count) + '/s'


def span(ms: float) -> str:
    """A time in milliseconds, in words."""
    if ms < 1000:
        return f'{ms:.0f} ms'
    if ms < 120 * 1000:
        return f'{ms / 1000:.1f} s'
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 120:
        return f'{minutes} min {seconds} s'
    return f'{minutes // 60} h {minutes % 60} min'


def decision(entry: Pass, mode: Optional[str]) -> str:
    """What was decided; "would" if that is not carried out."""
    would = 'would ' if mode == 'observe' else ''
    return would + printable(entry['decision'])


def pass_line(entry: Pass, mode: Optional[str]) -> str:
    """The log's line for a pass."""
    throttle = f'{entry["throttle"]} %'
    if entry['next-throttle'] != entry['throttle']:
        throttle += f' -> {entry["next-throttle"]} %'
    parts = [f'{decision(entry, mode)}: {printable(entry["reason"])}',
             f'{size(entry["bytes-sent"])} sent in {span(entry["duration"])}',
             f'bandwidth {rate(entry["bandwidth"])}',
             f'dirty rate {rate(entry["dirty-rate"])}',
             f'throttle {throttle}']
    if entry['pages-withheld']:
        withheld = entry['pages-withheld'] * entry['page-size']
        parts.append(f'{size(withheld)} withheld')
    if 'predicted-time' in entry:
        parts.append(f'switchover in {span(entry["predicted-time"])}')
    if 'predicted-downtime' in entry:
        parts.append(f'downtime {span(entry["predicted-downtime"])}')
    return (f'{entry["time"] / 1000:8.3f} s  pass {entry["pass"]}: '
            + '; '.join(parts))


def bar(info: dict[str, Any]) -> str:
    """How much of the memory is sent, of an answer of query-migrate."""
    ram = info.get('ram', {})
    total, left = ram.get('total', 0), ram.get('remaining', 0)
    if not total:
        return ''
    done = max(0.0, 1 - left / total)
    filled = int(done * _BAR_WIDTH)
    return (f'[{"#" * filled}{"-" * (_BAR_WIDTH - filled)}] '
            f'{int(done * 100):3} %  {size(left)} left')


def progress(info: dict[str, Any], last: Optional[Pass],
             mode: Optional[str]) -> str:
    """
    One line on a migration that runs: @info is an answer of query-migrate,
    @last the last pass.
    """
    status = info.get('status', 'none')
    parts = [bar(info)]
    if status != 'active':
        parts.append(printable(status))
    ram = info.get('ram', {})
    if ram.get('mbps'):
        # QEMU counts in 10^6 bits here
        parts.append(rate(ram['mbps'] * 1e6 / 8))
    throttle = last['next-throttle'] if last and mode != 'observe' \
        else info.get('cpu-throttle-percentage')
    if throttle is not None:
        parts.append(f'throttle {throttle} %')
    if last:
        parts += _prediction(info, last)
        parts.append(f'pass {last["pass"]}: {decision(last, mode)}: '
                     + printable(last['reason']))
    elif info.get('expected-downtime'):
        parts.append('downtime about ' + span(info['expected-downtime']))
    return '  '.join(filter(None, parts))


def _prediction(info: dict[str, Any], last: Pass) -> list[str]:
    parts = []
    if 'predicted-time' in last:
        since = info.get('total-time', 0) - last['time']
        left = max(0, last['predicted-time'] - max(0, since))
        parts.append(f'switchover in {span(left)}')
    else:
        parts.append('no switchover predicted')
    if 'predicted-downtime' in last:
        parts.append(f'downtime {span(last["predicted-downtime"])}')
    return parts


def title(record: Record) -> str:
    """A line that introduces a migration."""
    name = printable(record['id'])
    text = f'migration{" " if name else ""}{name}, ' \
        + printable(record['direction'])
    if record.get('mode'):
        text += f', convergence: {printable(record["mode"])}'
    return text


def summary(record: Record) -> str:
    """How a migration ended, or how far it is."""
    moved = 'received' if record['direction'] == 'incoming' else 'sent'
    after = f'after {span(record["total-time"])}'
    text = (f'{printable(record["id"]) or "migration"}: '
            f'{printable(record["outcome"])} {after}, '
            f'{size(record["bytes"])} {moved}')
    count = record.get('passes-dropped', 0) + len(record['passes'])
    if count:
        text += f' in {count} pass{"es" if count > 1 else ""}'
    if record.get('postcopy'):
        text += ', with post-copy'
    if record.get('error'):
        text += '\nerror: ' + printable(record['error'])
    return text + _downtime(record)


def _downtime(record: Record) -> str:
    parts = []
    if 'downtime' in record:
        parts.append(span(record['downtime']))
    if 'predicted-downtime' in record:
        parts.append(f'predicted {span(record["predicted-downtime"])}')
    if not parts:
        return ''
    if 'downtime-limit' in record:
        parts.append(f'limit {span(record["downtime-limit"])}')
    return '\ndowntime: ' + ', '.join(parts)


def log(record: Record) -> str:
    """A whole migration: its title, its passes, how it ended."""
    lines, before = [title(record)], 0
    for entry in record['passes']:
        if entry['pass'] > before + 1:
            lines.append(f'            ({entry["pass"] - before - 1} passes '
                         'were not kept)')
        before = entry['pass']
        lines.append(pass_line(entry, record.get('mode')))
    return '\n'.join(lines + [summary(record)])
