"""A window of the desktop that shows the frames of `vlfer watch`.

Tk, which comes with most Pythons: the OpenCV that vlfer depends on is built without windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlfer.errors import EnvironmentProblem

if TYPE_CHECKING:
    from vlfer.types import UInt8Array

_LONGEST_PX = 1280


class WindowClosed(Exception):  # noqa: N818, it is no error
    """The user closed the window, or pressed q or Escape in it."""


class LiveWindow:
    """A window with the newest picture.

    Args:
        title: In its frame.

    Raises:
        EnvironmentProblem: If there is no display, or Python comes without Tk.
    """

    def __init__(self, title: str) -> None:
        fix = "--view browser, or --view terminal"
        try:
            import tkinter
        except ImportError as error:
            raise EnvironmentProblem(
                "No window can be opened.", why=f"This Python comes without Tk ({error}).", fix=fix
            ) from error
        try:
            self._root = tkinter.Tk(className="vlfer")
        except tkinter.TclError as error:
            raise EnvironmentProblem("No window can be opened.", why=f"Tk says: {error}.", fix=fix) from error
        self._is_open = True
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self._leave)
        for key in ("<Escape>", "q"):
            self._root.bind(key, lambda _: self._leave())
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._picture: object = None

    def show(self, pixels: UInt8Array) -> None:
        """Show the next picture, (H, W, 3) uint8 RGB; a large one is shrunk.

        Raises:
            WindowClosed: If the user has closed the window.
        """
        if self._is_open:
            import tkinter

            import cv2

            height, width = pixels.shape[:2]
            scale = min(1.0, _LONGEST_PX / max(height, width))
            if scale < 1:
                size = (round(width * scale), round(height * scale))
                pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            head = f"P6 {pixels.shape[1]} {pixels.shape[0]} 255\n".encode()
            picture = tkinter.PhotoImage(master=self._root, data=head + pixels.tobytes(), format="PPM")
            self._label.configure(image=picture)
            self._picture = picture  # Tk does not hold it
            self._root.update()
        if not self._is_open:
            raise WindowClosed

    def close(self) -> None:
        """Close the window; also when it is closed already."""
        if self._is_open:
            self._leave()

    def _leave(self) -> None:
        self._is_open = False
        self._root.destroy()
