"""Places on the earth: distances that a database can compute, islands, and days of delivery."""

from __future__ import annotations

import math
from dataclasses import dataclass

# IUGG mean radius R1.
EARTH_KM = 6371.0088
# Days of delivery. Within a city's reach it is one; on the same island the road decides; across a
# strait the ferry and its port take two days more and the way counts by the sea.
CITY_KM = 30.0
ROAD_DAYS = ((150.0, 2), (500.0, 3), (math.inf, 4))
SEA_DAYS = ((500.0, 4), (1200.0, 5), (2500.0, 6), (math.inf, 8))

# South, north, west, east. The first box that holds a place names its island; a strait is narrower
# than a degree, so the boxes of neighbours are drawn along it.
_ISLANDS = (
    ("bali", -8.95, -8.05, 114.43, 115.72),
    ("madura", -7.25, -6.85, 112.68, 114.15),
    ("java", -8.95, -5.85, 105.08, 114.62),
    ("nusa tenggara", -11.2, -8.0, 115.72, 125.3),
    ("sumatra", -6.1, 6.2, 95.0, 106.4),
    ("bangka belitung", -3.5, -1.4, 106.4, 108.4),
    ("riau islands", -0.9, 4.9, 103.3, 109.0),
    ("kalimantan", -4.3, 4.5, 108.6, 118.0),
    ("kalimantan", 0.7, 4.5, 118.0, 119.1),
    ("sulawesi", -6.6, 2.2, 118.6, 125.4),
    ("maluku", -8.6, 3.0, 125.4, 130.9),
    ("papua", -9.3, 0.5, 130.9, 141.1),
)


@dataclass(frozen=True, slots=True)
class Point:
    """A place in degrees."""

    lat: float
    lng: float

    def vector(self) -> tuple[float, float, float]:
        """Return the place on the unit sphere."""
        lat, lng = math.radians(self.lat), math.radians(self.lng)
        return math.cos(lat) * math.cos(lng), math.cos(lat) * math.sin(lng), math.sin(lat)


def haversine_km(a: Point, b: Point) -> float:
    """Return the great-circle distance.

    hav(d/R) = sin²(Δlat/2) + cos(lat₁)·cos(lat₂)·sin²(Δlng/2); R. W. Sinnott, "Virtues of the
    Haversine", Sky & Telescope 68 (2), 1984, p. 159.
    """
    lat_a, lat_b = math.radians(a.lat), math.radians(b.lat)
    half_lat, half_lng = (lat_b - lat_a) / 2, math.radians(b.lng - a.lng) / 2
    h = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lng) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, h)))


def haversine_of(distance_km: float) -> float:
    """Return sin²(d/2R), which a database compares with instead of distances.

    The chord between two unit vectors is 2·sin(d/2R): a quarter of its square is this value, from
    three subtractions, and it grows with the distance up to half the way around the earth.
    """
    return math.sin(min(distance_km / (2 * EARTH_KM), math.pi / 2)) ** 2


def box(center: Point, radius_km: float) -> tuple[float, float, float, float] | None:
    """Return south, north, west, east of all places within a radius; None where a pole is inside.

    J. P. Matuschek, "Finding Points Within a Distance of a Latitude/Longitude Using Bounding
    Coordinates", 2010. Over the date line, west is greater than east.
    """
    reach = radius_km / EARTH_KM
    lat, lng = math.radians(center.lat), math.radians(center.lng)
    if reach >= math.pi / 2 or lat - reach <= -math.pi / 2 or lat + reach >= math.pi / 2:
        return None
    across = math.asin(min(1.0, math.sin(reach) / math.cos(lat)))
    # A hair more than needed: the exact test comes after.
    margin = 1e-9
    west = (math.degrees(lng - across) - margin + 180) % 360 - 180
    east = (math.degrees(lng + across) + margin + 180) % 360 - 180
    south, north = math.degrees(lat - reach) - margin, math.degrees(lat + reach) + margin
    return south, north, west, east


def island_of(place: Point) -> str:
    """Return the island of a place, empty outside Indonesia."""
    for name, south, north, west, east in _ISLANDS:
        if south <= place.lat <= north and west <= place.lng <= east:
            return name
    return ""


def delivery_days(distance_km: float, *, crosses_sea: bool) -> int:
    """Return in how many days goods arrive: by the tables above."""
    if distance_km <= CITY_KM:
        return 1
    table = SEA_DAYS if crosses_sea else ROAD_DAYS
    return next(days for reach_km, days in table if distance_km <= reach_km)
