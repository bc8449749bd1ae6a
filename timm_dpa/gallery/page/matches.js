// Buttons of the matches: 'mark' says right or wrong (again: takes it back), 'more' searches with a match.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.search !== undefined) {
    trigger('more', { key: button.dataset.search });
    return;
  }
  const was = button.getAttribute('aria-pressed') === 'true';
  button.parentElement.querySelectorAll('[aria-pressed]').forEach((other) => other.setAttribute('aria-pressed', 'false'));
  button.setAttribute('aria-pressed', String(!was));
  trigger('mark', { key: button.dataset.key, said: was ? '' : button.dataset.said });
});
