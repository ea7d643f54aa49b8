// Prints the folder that a model's name stands for, for tests/python/test_hub_live.py.
// Arguments: NAME [REVISION]. Exit status: 0 found, 2 not (the reason on stderr).

#include <iostream>

#include "rometrace/error.hpp"
#include "rometrace/hub/cache.hpp"
#include "tools.hpp"

int rometrace::testing::resolve(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::cerr << "usage: rometrace_resolve NAME [REVISION]\n";
    return 2;
  }
  try {
    std::cout << rometrace::resolve_model(argv[1], argc == 3 ? argv[2] : "main").string() << '\n';
    return 0;
  } catch (const rometrace::Error& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
