"""What makes renders vary as flights do: mirrored surroundings, shadows across vehicles, poses."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from timm_dpa.synth.dataset import Plan, render_stills
from timm_dpa.synth.render.camera import aim
from timm_dpa.synth.render.image import Setting, render
from timm_dpa.synth.render.shading import shade
from timm_dpa.synth.render.tracing import Scene, Solid, build_solid, make_solid
from timm_dpa.synth.vehicles.catalog import sample_identity, sample_model
from timm_dpa.synth.vehicles.shapes import cylinder
from timm_dpa.synth.vehicles.swatches import GLASS, MATT, PAINT
from timm_dpa.synth.world.casters import CASTERS, Caster, sample_shadow_pattern
from timm_dpa.synth.world.flights import sample_flight
from timm_dpa.synth.world.ground import draw_patch
from timm_dpa.synth.world.poses import sample_pose
from timm_dpa.synth.world.scenes import AssetCache
from timm_dpa.synth.world.skies import REACH, SIZE


@pytest.fixture(scope='module')
def flights() -> list:
    return [sample_flight(2, number) for number in range(1, 121)]


def upward(count: int, seed: int = 0) -> np.ndarray:
    """Unit directions above the horizon, `(3, N)`."""
    ways = np.random.default_rng(seed).normal(size=(3, count))
    ways[2] = np.abs(ways[2])
    return (ways / np.linalg.norm(ways, axis=0)).astype(np.float32)


def map_of(radiance) -> np.ndarray:
    """A map of the surroundings by polar coordinates: the radius is tan of half the angle from the zenith."""
    middle = (np.arange(SIZE) + 0.5 - SIZE / 2) * 2 * REACH / SIZE
    radius, around = np.hypot(middle[None], middle[:, None]), np.arctan2(middle[:, None], middle[None])
    angle = 2 * np.arctan(radius)
    flat = radiance(np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), np.cos(angle))
    return np.repeat(flat.reshape(1, -1), 3, 0).astype(np.float32)


class TestMirror:
    def test_directions(self, flights):
        light = replace(flights[0].light, surroundings=map_of(lambda x, y, z: 2 + x + 0.5 * y - 0.7 * z), angle=0.0)
        ways = upward(3000)
        ways = ways[:, ways[2] > 0.02]
        x, y, z = ways
        assert np.abs(light.mirrored(ways) - (2 + x + 0.5 * y - 0.7 * z)).max() < 0.03
        # in coordinates turned by a quarter, what lay along x lies along -y
        assert np.abs(light.turned(np.pi / 2).mirrored(ways) - (2 - y + 0.5 * x - 0.7 * z)).max() < 0.03

    def test_a_bright_patch_moves_with_the_view(self, flights):
        """Over a sphere, it is where the normal halves the angle between the eye and the patch."""
        patch = np.array([0.6, 0.0, 0.8])
        sky = map_of(lambda x, y, z: np.exp(200 * (x * patch[0] + y * patch[1] + z * patch[2] - 1)))
        light = replace(flights[0].light, surroundings=sky, angle=0.0, sunlight=np.zeros(3, np.float32))
        normals, ones = upward(20000, 1), np.ones(20000, np.float32)
        texels = np.tile(np.array([[8, 8, 9, PAINT]], np.uint8), (20000, 1))
        found = []
        for azimuth, pitch in ((0.3, 0.6), (2.0, 1.0), (-2.4, 1.4)):
            eye = np.array([np.cos(pitch) * np.cos(azimuth), np.cos(pitch) * np.sin(azimuth), np.sin(pitch)])
            views = np.repeat(-eye[:, None], 20000, 1).astype(np.float32)
            facing = eye @ normals > 0.2
            color = shade(light, views, normals, ones, texels, 0 * ones)[1] * facing
            expected = (eye + patch) / np.linalg.norm(eye + patch)
            assert normals[:, color.argmax()] @ expected > np.cos(np.deg2rad(4))
            found.append(normals[:, color.argmax()])
        assert all(a @ b < 0.97 for a, b in pairwise(found))

    def test_glass_and_dark_paint_change_with_the_direction_and_matt_does_not(self, flights):
        """A level roof from 24 directions: how far its brightness varies, in stops."""
        around = np.arange(24) * 2 * np.pi / 24
        views = -np.stack([0.5 * np.cos(around), 0.5 * np.sin(around), np.full(24, 0.866)]).astype(np.float32)
        normals, ones = np.tile(np.array([[0], [0], [1]], np.float32), (1, 24)), np.ones(24, np.float32)
        spread = {}
        for name, rgb, material in (('glass', 14, GLASS), ('paint', 22, PAINT), ('matt', 22, MATT)):
            texels = np.tile(np.array([[rgb, rgb, rgb, material]], np.uint8), (24, 1))
            stops = [np.log2(shade(f.light, views, normals, ones, texels, ones)[1]) for f in flights]
            spread[name] = np.median([np.ptp(s) for s in stops])
        assert spread['glass'] > 1
        assert spread['paint'] > 0.7
        assert spread['matt'] < 0.5 * spread['paint']


def pole_caster(poles) -> Caster:
    return Caster('poles', None, (0.0, 0.0), 1.0, 0.0, np.empty((0, 5)), np.array(poles, float))


class TestCasters:
    SUN = np.array([0.48, -0.36, 0.8])

    @pytest.mark.parametrize('kind', CASTERS)
    def test_it_is_fixed_in_the_place_and_thrown_along_the_sun(self, kind):
        rng = np.random.default_rng(4)
        spot = (212.0, 3.0, 0.7)
        caster = sample_shadow_pattern(1, self.SUN, spot, rng, kind)
        place = np.stack([rng.uniform(205, 219, 4000), rng.uniform(-4, 10, 4000), rng.uniform(0, 1, 4000)])

        def seen_from(spot, place):
            c, s = np.cos(spot[2]), np.sin(spot[2])
            into = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
            points = into @ (place - np.array([[spot[0]], [spot[1]], [0]]))
            return caster.sun_left(points.astype(np.float32), (into @ self.SUN).astype(np.float32), spot)

        here = seen_from(spot, place)
        assert here.shape == (4000,)
        assert 0 <= here.min() < 0.4
        assert here.max() == 1
        for other in ((209.0, -1.5, -2.0), (215.0, 6.0, 0.7)):
            assert (np.abs(seen_from(other, place) - here) < 0.05).mean() > 0.99
        # up along the ray to the sun, nothing changes before the pattern
        higher = place + self.SUN[:, None] * rng.uniform(0, 0.2, 4000)
        assert (np.abs(seen_from(spot, higher) - here) < 0.05).mean() > 0.99
        moved = place + np.array([[0.6], [0.3], [0]])
        assert (np.abs(seen_from(spot, moved) - here) > 0.3).mean() > 0.01

    def test_poles_shade_what_a_traced_cylinder_shades(self):
        mesh = cylinder((2.0, 1.0, 0.0), (2.0, 1.0, 4.0), 0.3, 0, 40)
        places = np.full((len(mesh.corners), 3, 2), 0.5, np.float32)
        scene = Scene([make_solid(mesh, np.array([[9, 9, 9, MATT]], np.uint8), places, 1, rays=0)])
        rng = np.random.default_rng(0)
        points = np.stack([rng.uniform(-1, 3, 6000), rng.uniform(0, 4, 6000), rng.uniform(0, 2, 6000)]).astype(
            np.float32
        )
        points = points[:, np.hypot(points[0] - 2, points[1] - 1) > 0.35]
        sun = self.SUN.astype(np.float32)
        traced = scene.sunlit(np.ascontiguousarray(points.T), None, np.tile(sun, (points.shape[1], 1)))
        ours = pole_caster([[2.0, 1.0, 0.3, 4.0]]).sun_left(points, sun, (0.0, 0.0, 0.0))
        assert 0.03 < (traced == 0).mean() < 0.3
        assert ((ours < 0.5) == (traced == 0)).mean() > 0.985

    def test_a_third_of_the_sunny_images_has_one_and_the_table_says_so(self):
        plan = Plan(12, 12, seed=8, sizes=(24, 24), test_share=0, degradation=0)
        assets, flights, sunny, shaded = AssetCache(plan.seed), {}, 0, 0
        for number in range(plan.ids):
            for _, _, _, row in render_stills(plan, number, assets, flights):
                if flights[int(row[2])].light.sunlight.max() > 0:
                    sunny += 1
                    shaded += 'shadow' in row[11].split()
        assert sunny > 80
        assert 0.25 < shaded / sunny < 0.5


NEW_KINDS = ('minibus', 'tipper', 'semitrailer', 'container', 'skeleton', 'tanker')


class TestKinds:
    @pytest.mark.parametrize('kind', NEW_KINDS)
    def test_every_new_kind_is_seen_from_above_behind_and_beside(self, kind):
        """Its picture has the size that its meters ask for, and colors of more than one part."""
        number = next(n for n in range(1000) if sample_model(3, n).kind == kind)
        solid, body = build_solid(sample_identity(3, number, sample_model(3, number), 1))
        scene, flight = Scene([solid]), sample_flight(3, 4, 0)
        for pitch, azimuth in ((88, 0.0), (20, 0.0), (40, np.pi / 2)):
            view = aim(solid.corners.reshape(-1, 3), 60, np.deg2rad(pitch), azimuth, 160)
            pixels = render(
                scene, view, Setting(flight.place, (50.0, 1.0, 0.0), flight.light), np.random.default_rng(0)
            )
            columns, rows = np.meshgrid(np.arange(view.width) + 0.5, np.arange(view.height) + 0.5)
            seen = scene.count(view.eye, view.rays(columns.ravel(), rows.ravel()))[0]
            assert pixels.reshape(-1, 3)[seen].std(axis=0).max() > 12
            # meters a pixel, in the middle
            pixel = np.linalg.norm(view.eye) / view.focal
            wide, tall = (np.ptp(v.ravel()[seen]) * pixel for v in (columns, rows))
            across = body.width if azimuth == 0 else body.length
            assert 0.93 * across < wide < 1.12 * across + 0.8
            if pitch == 88:
                assert 0.95 * body.length < tall < 1.1 * body.length

    def test_rear_lamps_and_plates_are_seen_from_behind(self):
        """Red to both sides and a pale or yellow plate between them, of most cars."""
        lamps = plates = 0
        for number in range(12):
            model = next(m for m in (sample_model(4, n) for n in range(20 * number, 999)) if m.kind in ('suv', 'sedan'))
            solid, body = build_solid(sample_identity(4, number, model, 0))
            y, z = np.meshgrid(np.linspace(-0.5, 0.5, 120) * body.width, np.linspace(0.3, 1.2, 80))
            origin = np.array([-40.0, 0, 0.8])
            ways = np.stack([np.full(y.size, 40 - body.length / 2), y.ravel(), z.ravel() - 0.8], 1)
            hits = Scene([solid]).trace(origin, (ways / np.linalg.norm(ways, axis=1, keepdims=True)).astype(np.float32))
            red, green, blue, _ = hits.texels.astype(int).T
            side = hits.points[:, 1] / body.width
            lamp = (red > 110) & (green < 40) & (blue < 40)
            lamps += (side[lamp] > 0.25).sum() > 20 and (side[lamp] < -0.25).sum() > 20
            plate = (red > 195) & (green > 150) & (np.abs(side) < 0.17) & (hits.points[:, 2] < 0.95)
            plates += plate.sum() > 30 and body.length > 3
        assert lamps >= 10
        assert plates >= 8


class TestGround:
    def test_places_keep_their_tone_and_no_two_visits_look_alike(self, flights):
        for flight in flights[:24]:
            place, low = flight.place, np.array([100.0, -2.0])
            visits = [draw_patch(place, low, low + np.array([6, 4]), 0.03, np.random.default_rng(n)) for n in range(6)]
            base = ((np.array(place.base) / 255 + 0.055) / 1.055) ** 2.4
            # markings and what is beside the road are the place's own
            medians = np.array([np.median(visit, axis=(0, 1)) for visit in visits])
            assert (np.ptp(np.log(medians), axis=0) < 0.45).all()
            if place.kind in ('yard', 'gravel'):
                assert np.abs(np.log(medians / base)).max() < 0.4
            fine = [np.log(visit[..., 1] / np.roll(visit[..., 1], 1, 0)).std() for visit in visits]
            assert max(fine) > 1.1 * min(fine)
            assert np.isfinite(visits).all()
            assert np.min(visits) > 0


@pytest.fixture(scope='module')
def car() -> Solid:
    return build_solid(Plan(2, seed=5).identity(0))[0]


class TestPoses:
    def test_flights_reach_low_pitch_and_height(self, flights):
        pitch, height = (np.array([getattr(f, name) for f in flights]) for name in ('pitch', 'height'))
        assert 0.15 < (pitch < 40).mean() < 0.38
        assert pitch.min() < 19
        assert pitch.max() > 85
        assert height.min() < 10
        assert height.max() > 90
        low = [f.place.kind for f in flights if f.pitch < 40]
        assert np.mean([kind in ('road', 'crossing', 'street') for kind in low]) > 0.6

    def test_low_views_are_of_ends_mostly_rears(self, flights, car):
        rng = np.random.default_rng(0)
        low = next(f for f in flights if f.pitch < 25)
        azimuths = np.array([sample_pose(low, car, rng).azimuth for _ in range(800)])
        # the camera looks along x at the rear
        rear, front = np.cos(azimuths) > np.cos(np.pi / 4), np.cos(azimuths) < -np.cos(np.pi / 4)
        assert 0.5 < rear.mean() < 0.8
        assert 0.15 < front.mean() < 0.4
        high = next(f for f in flights if 50 < f.pitch < 70)
        azimuths = np.array([sample_pose(high, car, rng).azimuth for _ in range(800)])
        assert (np.cos(azimuths) > np.cos(np.pi / 4)).mean() < 0.35

    def test_the_camera_points_past_the_vehicle_in_all_directions(self, flights, car):
        rng, off = np.random.default_rng(1), []
        for _ in range(15):
            for flight in flights:
                pose = sample_pose(flight, car, rng)
                assert 8 <= pose.height <= 120
                assert 14.99 < np.rad2deg(pose.pitch) < 89.91
                view = aim(car.corners.reshape(-1, 3), pose.height, pose.pitch, pose.azimuth, 128, aside=pose.aside)
                seen = (car.corners.reshape(-1, 3) - view.eye) @ view.axes.T
                assert np.rad2deg(np.arctan2(np.hypot(*seen[:, :2].T), seen[:, 2])).max() < 75
                assert view.axes[2, 2] < 0.01  # not into the sky
                origin = view.axes @ -view.eye
                off.append(np.rad2deg(np.arctan2(origin[:2], origin[2])))
        off = np.array(off)
        angle = np.hypot(*off.T)
        assert 30 < np.quantile(angle, 0.995) < 38
        assert np.median(angle) > 10
        for x in (-1, 1):
            for y in (-1, 1):
                assert ((off * [x, y]).min(axis=1) > 8).mean() > 0.02
