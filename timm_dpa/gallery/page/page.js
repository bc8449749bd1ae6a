() => {
  // a picture from the clipboard goes where a chosen file goes
  document.addEventListener('paste', (event) => {
    const files = event.clipboardData ? event.clipboardData.files : [];
    const input = document.querySelector('#upload input[type=file]');
    if (!files.length || !input) return;
    event.preventDefault();
    const transfer = new DataTransfer();
    transfer.items.add(files[0]);
    input.files = transfer.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
  });
}
