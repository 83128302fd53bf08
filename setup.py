"""Builds the C kernel, if there is a compiler; without one the Python reference does the work."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "respaldo.kernel._native",
            sources=["src/respaldo/kernel/native.c"],
            extra_compile_args=["-std=gnu11", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
