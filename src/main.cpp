// The executable.

#include "cli/program.hpp"

int main(int argc, char** argv) {
  rometrace::cli::leave_program(rometrace::cli::run_program(argc, argv));
}
