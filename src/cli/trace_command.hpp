#pragma once

#include <cstdint>
#include <stop_token>

#include "cli/options.hpp"
#include "rometrace/model/decoder.hpp"

namespace rometrace::cli {

/// Traces the prompt of the options and writes the result. Returns the exit status. Throws Error, Interrupted.
int run_trace(const Options& options, const std::stop_token& stop);

/// Bytes of rows that a sweep may hold, where the options do not set them and a prompt needs `least`.
std::int64_t memory_for_rows(const Options& options, const Decoder& model, std::int64_t least);

}  // namespace rometrace::cli
