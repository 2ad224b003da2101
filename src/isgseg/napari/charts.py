"""Small charts for docks, in the colours of the theme: a histogram and a curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

_BAR = QColor(255, 209, 0)
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 10, 8, 30


class Chart(QWidget):
    """An area with axes; subclasses draw into it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.x_name = text, ""
        self.x_range, self.y_high, self.y_low = (0.0, 1.0), 0.0, 0.0
        self.setMinimumHeight(130)
        self.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Fixed)

    def sizeHint(self) -> QSize:
        """Qt's: how large it likes to be."""
        return QSize(280, 130)

    def paintEvent(self, _event: Any) -> None:
        """Qt's: draws axes, and what is in them."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.Antialiasing)
        colour = self.palette().text().color()
        painter.setPen(QPen(colour, 1))
        if self.y_high <= self.y_low:
            painter.drawText(self.rect(), Qt.AlignCenter | Qt.TextWordWrap, self.text)
            return
        area = self.area()
        font = painter.font()
        font.setPointSizeF(max(font.pointSizeF() * 0.8, 6))
        painter.setFont(font)
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        top = QRectF(0, area.top() - 7, _LEFT - 4, 14)
        bottom = QRectF(0, area.bottom() - 7, _LEFT - 4, 14)
        right = Qt.AlignRight | Qt.AlignVCenter
        painter.drawText(top, right, f"{self.y_high:.3g}")
        painter.drawText(bottom, right, f"{self.y_low:.3g}")
        below = QRectF(area.left(), area.bottom() + 2, area.width(), _BOTTOM - 4)
        painter.drawText(below, Qt.AlignLeft | Qt.AlignTop, f"{self.x_range[0]:.4g}")
        painter.drawText(below, Qt.AlignRight | Qt.AlignTop, f"{self.x_range[1]:.4g}")
        painter.drawText(below, Qt.AlignHCenter | Qt.AlignTop, self.x_name)
        self.draw(painter, area)

    def area(self) -> QRectF:
        """Where values are drawn."""
        return QRectF(_LEFT, _TOP, self.width() - _LEFT - _RIGHT, self.height() - _TOP - _BOTTOM)

    def draw(self, painter: QPainter, area: QRectF) -> None:
        """Draws the values."""
        raise NotImplementedError


class Histogram(Chart):
    """Bars: how many granules of each size."""

    def __init__(self) -> None:
        super().__init__("The sizes of the granules are shown here")
        self.counts: list[int] = []

    def set_counts(self, counts: Sequence[int], low: float, high: float, unit: str) -> None:
        """Shows counts of bins between two diameters."""
        self.counts = list(counts)
        self.x_range, self.x_name = (low, high), f"diameter, {unit}"
        self.y_high = float(max(self.counts, default=0))
        self.update()

    def draw(self, painter: QPainter, area: QRectF) -> None:
        """Draws the bars."""
        width = area.width() / max(len(self.counts), 1)
        for place, count in enumerate(self.counts):
            height = area.height() * count / self.y_high
            bar = QRectF(area.left() + place * width, area.bottom() - height, width - 1, height)
            painter.fillRect(bar, _BAR)


class Curve(Chart):
    """A line: the loss over the steps."""

    def __init__(self) -> None:
        super().__init__("The loss is shown here while the network learns")
        self.points: list[tuple[float, float]] = []

    def set_points(self, points: Sequence[tuple[float, float]], name: str) -> None:
        """Shows points (x, y), in order of x."""
        self.points = list(points)
        if self.points:
            self.x_range = (self.points[0][0], max(self.points[-1][0], self.points[0][0] + 1))
            self.y_high = max(y for _, y in self.points) * 1.05
        else:
            self.y_high = 0.0
        self.x_name = name
        self.update()

    def draw(self, painter: QPainter, area: QRectF) -> None:
        """Draws the line."""
        low, high = self.x_range
        line = QPolygonF(
            [
                QPointF(
                    area.left() + area.width() * (x - low) / (high - low),
                    area.bottom() - area.height() * (y - self.y_low) / (self.y_high - self.y_low),
                )
                for x, y in self.points
            ]
        )
        painter.setPen(QPen(_BAR, 2))
        painter.drawPolyline(line)
