// Writes draws of RandomState as raw doubles:
// rometrace_randomstate SEED randn|uniform|random_sample|chisquare:DF COUNT

#include <cstdio>
#include <cstdlib>
#include <string>

#include "rometrace/trace/noise.hpp"
#include "tools.hpp"

int rometrace::testing::randomstate(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: rometrace_randomstate SEED randn|uniform|random_sample|chisquare:DF COUNT\n", stderr);
    return 2;
  }
  rometrace::RandomState random(static_cast<std::uint32_t>(std::strtoul(argv[1], nullptr, 10)));
  const std::string kind = argv[2];
  const double df = kind.starts_with("chisquare:") ? std::strtod(argv[2] + kind.find(':') + 1, nullptr) : 0;
  for (long i = std::strtol(argv[3], nullptr, 10); i > 0; --i) {
    const double value = kind == "randn"     ? random.randn()
                         : kind == "uniform" ? random.uniform(-1, 1)
                         : df > 0            ? random.chisquare(df)
                                             : random.random_sample();
    if (std::fwrite(&value, sizeof value, 1, stdout) != 1) return 2;
  }
  return std::fflush(stdout) == 0 ? 0 : 2;
}
