"""Options of command lines."""

from __future__ import annotations

from puna.data.questions.options import find


def test_options_of_argument_parsers(found):
    text = (
        "p.add_argument('-q', '--quiet', help='print only what failed')\n"
        "p.add_argument('name', help='a name of a thing')\n"
        "p.add_argument('--size', help='size in bytes (default %d)' % 3)\n"
        "p.add_option('-n', help='how many there are')\n"
    )
    assert found(find, text) == [
        ("option", {"name": "--quiet"}, "print only what failed"),
        ("option", {"name": "-n"}, "how many there are"),
    ]


def test_options_listed_in_prose(found):
    text = (
        "Options\n=======\n\n  -v, --verbose     print what is done\n  -o FILE           write the output there\n"
        "  --long            this goes on in\n                    the next line\n  -x  one two\n"
    )
    assert found(find, text, "text") == [
        ("option", {"name": "--verbose"}, "print what is done"),
        ("option", {"name": "-o"}, "write the output there"),
    ]
