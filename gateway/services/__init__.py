"""The methods of the public services: validate, resolve, adapt, dispatch, adapt back."""
