// A program of tests/tools.hpp, the one that ROMETRACE_TOOL names.

#include "tools.hpp"

int main(int argc, char** argv) {
  return rometrace::testing::ROMETRACE_TOOL(argc, argv);
}
