"""Recipes: values, their checks, and the files of the package against the table of facts."""

import re

import pytest
import yaml

from timm_dpa.train.losses import METRIC_LOSSES
from timm_dpa.train.recipes.recipe import Recipe, list_recipes, load_recipe
from timm_dpa.train.recipes.reference import recipe_reference


class TestValues:
    def test_a_recipe_survives_its_own_yaml(self, tmp_path):
        recipe = Recipe().override(['model.args={attn_stages: [2, 3]}', 'data.image_size=[128, 64]', 'run.ema=0.99'])
        path = tmp_path / 'recipe.yaml'
        path.write_text(recipe.as_yaml())
        assert load_recipe(path) == recipe
        assert Recipe.from_dict(recipe.as_dict()) == recipe

    def test_settings(self):
        recipe = Recipe().override(
            [
                'optim.lr=1e-4',
                'data.image_size=96',
                'loss.metric_args.margin=0.3',
                'loss.metric_args.mining=weighted',
                'schedule.decay_epochs=[10, 20]',
                'model.init_from=null',
                'run.compile=true',
            ]
        )
        assert recipe.optim.lr == 1e-4
        assert recipe.data.image_size == (96, 96)
        assert recipe.loss.metric_args == {'margin': 0.3, 'mining': 'weighted'}
        assert recipe.schedule.decay_epochs == [10.0, 20.0]
        assert recipe.model.init_from is None
        assert recipe.run.compile is True

    def test_numbers_below_free_keys(self):
        recipe = Recipe().override(
            ['optim.args.eps=1e-8', 'loss.metric_args.margin=3e-1', 'optim.args.betas=[0.9, 1e-2]']
        )
        assert recipe.optim.args == {'eps': 1e-8, 'betas': [0.9, 0.01]}
        assert recipe.loss.metric_args == {'margin': 0.3}

    @pytest.mark.parametrize(
        ('setting', 'message'),
        [
            ('optim.lrr=1', 'did you mean optim.lr'),
            ('optimiser.lr=1', 'optim'),
            ('optim.lr=fast', 'optim.lr'),
            ('optim.lr=true', 'a number'),
            ('batch.size=3.5', 'whole number'),
            ('batch.size=true', 'whole number'),
            ('run.compile=1', 'true or false'),
            ('loss.metric=contrastive', 'multi_similarity'),
            ('data.image_size=[1, 2, 3]', 'a list of two'),
            ('model.args=3', 'keys and values'),
            ('optim=3', 'keys and values'),
            ('optim.lr.x=1', 'optim.lr has no keys'),
            ('optim.lr', 'key=value'),
            ('optim.lr=[', 'YAML'),
            ('optim.lr=.nan', 'a number'),
            ('optim.lr=0', r'optim\.lr must be above 0, not 0'),
            ('optim.clip_grad=-1', r'clip_grad must be above 0, not -1; null for none'),
            ('loss.label_smoothing=1', 'must be at least 0, below 1, not 1'),
            ('batch.mix=1', 'above 0, below 1'),
            ('batch.per_epoch=0', r'batch\.per_epoch must be at least 1'),
            ('schedule.epochs=-1', r'schedule\.epochs must be at least 0'),
            ('schedule.warmup_factor=2', r'in 0\.\.1'),
            ('schedule.warmup_steps=-1', r'warmup_steps must be at least 0'),
            ('schedule.early_sizes=[[0, 64]]', r'early_sizes\[0\]\[0\] must be at least 1, not 0'),
            ('schedule.early_sizes=[[1, 16]]', r'early_sizes\[0\]\[1\] must be at least 32, not 16'),
            ('schedule.early_sizes=[3]', r'early_sizes\[0\]=3: must be a list of two'),
            ('schedule.decay_epochs=[1, x]', r"decay_epochs\[1\]='x': must be a number"),
            ('data.protocol=vrru', 'one of fixed, vru, first-last, one-query, gap, cross-camera, or null'),
            ('data.layout=veri', 'one of auto, veri_uav'),
            ('data.mix=crops', 'a list'),
        ],
    )
    def test_wrong_settings_name_the_key_and_what_it_takes(self, setting, message):
        with pytest.raises(ValueError, match=message):
            Recipe().override([setting])

    def test_all_that_is_wrong_is_named_in_one_line(self):
        with pytest.raises(
            ValueError, match=r'^unknown key optim\.lrr; did you mean optim\.lr\?; run\.seed must be'
        ) as error:
            Recipe().override(['optim.lrr=1', 'run.seed=-1'])
        assert '\n' not in str(error.value)

    def test_values_set_later_are_checked_and_belong_to_one_recipe(self):
        recipe = Recipe()
        with pytest.raises(ValueError, match='greater than 0'):
            recipe.optim.lr = -1.0
        recipe.optim.lr = 0.5
        recipe.model.args['attn_stages'] = [4]
        assert (Recipe().optim.lr, Recipe().model.args) == (3.5e-4, {})

    def test_a_wrong_file_is_named(self, tmp_path):
        path = tmp_path / 'mine.yaml'
        path.write_text('optim: {lrate: 1}\n')
        with pytest.raises(ValueError, match=r'mine\.yaml.*unknown key optim\.lrate'):
            load_recipe(path)
        path.write_text('optim: {lr: [\n')
        with pytest.raises(ValueError, match='not YAML'):
            load_recipe(path)
        with pytest.raises(FileNotFoundError, match='paper/veri_uav'):
            load_recipe('paper/veri')


class TestShippedRecipes:
    def test_all_are_there_and_fit(self):
        assert set(list_recipes()) >= {'paper/veri_uav', 'paper/vru', 'released/veri_uav', 'released/vru', 'strong'}
        for name in list_recipes():
            assert load_recipe(name).batch.size % load_recipe(name).batch.images_per_identity == 0

    def test_paper_numbers(self):
        uav, vru = load_recipe('paper/veri_uav'), load_recipe('paper/vru')
        assert (uav.batch.size, uav.optim.name, uav.optim.lr, uav.schedule.kind) == (32, 'momentum', 0.35e-4, 'cosine')
        assert (vru.batch.size, vru.optim.name, vru.optim.lr, vru.schedule.kind) == (64, 'adam', 1e-4, 'step')
        assert (vru.schedule.decay_epochs, vru.schedule.decay_rate) == ([30, 50], 0.1)
        for recipe in (uav, vru):
            assert recipe.schedule.epochs == 60
            assert recipe.data.image_size == (256, 256)
            assert recipe.augment.augmix > 0
            assert (recipe.loss.classifier, recipe.loss.label_smoothing, recipe.loss.smooth_target) == (
                'linear',
                0.1,
                True,
            )
            assert (recipe.loss.metric, recipe.loss.metric_args) == ('triplet', {})

    def test_numbers_of_the_released_code(self):
        uav, vru = load_recipe('released/veri_uav'), load_recipe('released/vru')
        assert (uav.batch.size, uav.batch.images_per_identity) == (32, 16)
        assert (vru.batch.size, vru.batch.images_per_identity) == (64, 4)
        assert (uav.loss.classifier, uav.loss.scale, uav.loss.margin) == ('circle', 64, 0.35)
        assert (uav.loss.metric_feature, vru.loss.metric_feature) == ('after_neck', 'before_neck')
        assert vru.loss.metric_args == {'mining': 'weighted'}
        assert uav.schedule.min_lr > uav.optim.lr
        assert (uav.schedule.freeze_steps, uav.schedule.warmup_steps, uav.schedule.hold_epochs) == (3000, 3000, 30)
        assert (vru.schedule.warmup_steps, vru.schedule.decay_epochs) == (2000, [30, 50])
        for recipe in (uav, vru):
            assert (recipe.augment.augmix, recipe.augment.autoaugment) == (0, 0.1)
            assert recipe.model.args == {'stem_pool_ceil': True}
            assert recipe.loss.smooth_target is False

    def test_yaml_is_plain(self):
        for name in list_recipes():
            assert yaml.safe_load(load_recipe(name).as_yaml()) == load_recipe(name).as_dict()


class TestReference:
    def test_has_a_row_for_every_key_with_its_default(self):
        rows = dict(
            re.findall(r'^\| `([a-z_]+\.[a-z_]+)` \| [^|]+ \| `([^|]+)` \| .{10,} \|$', recipe_reference(), re.M)
        )
        values = Recipe().as_dict()
        assert set(rows) == {f'{section}.{key}' for section in values for key in values[section]}
        # the defaults, as they are printed, are those of the package
        assert Recipe().override(f'{key}={value}' for key, value in rows.items()) == Recipe()

    def test_says_ranges_and_choices(self):
        text = recipe_reference()
        assert '| `run.ema` | a number of at least 0, below 1, or null | `null` |' in text
        assert f'| `loss.metric` | one of {", ".join(METRIC_LOSSES)}, none | `triplet` |' in text
