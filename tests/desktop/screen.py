"""What is on a virtual display; run by the system's own Python, which has the libraries for it.

    python3 - tree               all widgets, as JSON
    python3 - picture            the whole screen, as a PNG
    python3 - pixels X Y W H     a part of it, raw

The desktop's interface for screen readers (AT-SPI) says what each widget is and what stands in
it: the cells of a list, the buttons of a dialog. All goes to standard output, and the script
comes on standard input: the user of the desktop may not be let into this folder.
"""

import json
import sys
import warnings

import gi

gi.require_version("Atspi", "2.0")
gi.require_version("Gdk", "3.0")
from gi.repository import Atspi, Gdk, GLib  # noqa: E402 - only now are their versions known

DEEPEST = 40
"""Widgets within each other, at most."""
MOST = 150
"""Children of one widget, at most: each cell of a list is a child of it."""


def tell(widget, depth):
    """A widget and all that is in it; None for what is gone, or hidden."""
    try:
        states = widget.get_state_set()
        # Applications and the desktop itself have no such state.
        if depth > 1 and not states.contains(Atspi.StateType.SHOWING):
            return None
        text = ""
        if widget.get_text_iface() is not None:
            text = Atspi.Text.get_text(widget, 0, -1)
        box = [0, 0, 0, 0]
        if widget.get_component_iface() is not None:
            found = widget.get_extents(Atspi.CoordType.SCREEN)
            box = [found.x, found.y, found.width, found.height]
        children = []
        if depth < DEEPEST:
            for number in range(min(MOST, widget.get_child_count())):
                child = widget.get_child_at_index(number)
                if child is not None and (told := tell(child, depth + 1)):
                    children.append(told)
        role, name = widget.get_role_name(), widget.get_name() or text
    except GLib.Error:
        return None
    return {"role": role, "name": name, "box": box, "children": children}


def picture(box=None):
    root = Gdk.get_default_root_window()
    box = box or (0, 0, root.get_width(), root.get_height())
    return Gdk.pixbuf_get_from_window(root, *box)


warnings.simplefilter("ignore", DeprecationWarning)  # the newer names aren't everywhere yet
if sys.argv[1] == "tree":
    json.dump(tell(Atspi.get_desktop(0), 0), sys.stdout)
elif sys.argv[1] == "picture":
    done, data = picture().save_to_bufferv("png", [], [])
    sys.stdout.buffer.write(data)
else:
    part = picture([int(word) for word in sys.argv[2:]])
    sys.stdout.buffer.write(part.read_pixel_bytes().get_data())
