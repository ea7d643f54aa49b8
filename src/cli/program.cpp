#include "cli/program.hpp"

#include <c10/util/Exception.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <new>
#include <string>
#include <variant>

#include "cli/commands/batch_command.hpp"
#include "cli/commands/calibrate_command.hpp"
#include "cli/commands/edit_command.hpp"
#include "cli/commands/export_command.hpp"
#include "cli/commands/families_command.hpp"
#include "cli/commands/fetch_command.hpp"
#include "cli/commands/models_command.hpp"
#include "cli/commands/moments_command.hpp"
#include "cli/commands/repeat_command.hpp"
#include "cli/commands/self_check_command.hpp"
#include "cli/commands/show_command.hpp"
#include "cli/commands/trace_command.hpp"
#include "cli/download.hpp"
#include "cli/exit_status.hpp"
#include "cli/machine/process.hpp"
#include "cli/options/options.hpp"
#include "rometrace/error.hpp"

namespace rometrace::cli {
namespace {

void set_up_log() {
  auto logger = spdlog::stderr_logger_mt("rometrace");
  logger->set_pattern("rometrace: %v");
  spdlog::set_default_logger(std::move(logger));
}

spdlog::level::level_enum log_level(const Options& options) {
  return options.quiet ? spdlog::level::err : options.verbose ? spdlog::level::debug : spdlog::level::info;
}

int run(int status, const std::stop_token&) {
  return status;
}

int run(const Options& options, const std::stop_token& stop) {
  spdlog::set_level(log_level(options));
  if (options.self_check) return run_self_check(options, stop);
  return options.facts ? run_batch(options, stop) : run_trace(options, stop);
}

int run(const SummaryOptions& options, const std::stop_token& stop) {
  return run_summary(options, stop);
}

int run(const MergeOptions& options, const std::stop_token& stop) {
  return run_merge(options, stop);
}

int run(const ShowOptions& options, const std::stop_token& stop) {
  return run_show(options, stop);
}

int run(const ExportOptions& options, const std::stop_token& stop) {
  spdlog::set_level(options.quiet ? spdlog::level::err : spdlog::level::info);
  return run_export(options, stop);
}

int run(const CalibrateOptions& options, const std::stop_token& stop) {
  spdlog::set_level(log_level(options.trace));
  return run_calibrate(options, stop);
}

int run(const EditOptions& options, const std::stop_token& stop) {
  spdlog::set_level(log_level(options.run));
  return run_edit(options, stop);
}

int run(const MomentsOptions& options, const std::stop_token& stop) {
  spdlog::set_level(log_level(options.trace));
  return run_moments(options, stop);
}

int run(const RepeatOptions& options, const std::stop_token& stop) {
  spdlog::set_level(log_level(options.run));
  return run_repeat(options, stop);
}

int run(const FetchModelsOptions& options, const std::stop_token& stop) {
  spdlog::set_level(options.quiet ? spdlog::level::err : spdlog::level::info);
  return run_fetch(options, stop);
}

int run(const ModelsOptions& options, const std::stop_token& stop) {
  return run_models(options, stop);
}

int run(const FamiliesOptions& options, const std::stop_token& stop) {
  return run_families(options, stop);
}

// The first line of a message: libtorch's errors go on with a C++ stack.
std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

}  // namespace

int run_program(int argc, char** argv) {
  reserve_standard_descriptors();
  bound_ready_products();
  try {
    set_up_log();
    const auto stop = watch_stop_signals();
    watch_mapped_files();
    const auto command = parse_options(argc, argv);
    return std::visit([&](const auto& options) { return run(options, stop); }, command);
  } catch (const DownloadInterrupted&) {
    spdlog::error("interrupted");
    return kInterrupted;
  } catch (const Interrupted&) {
    spdlog::error("interrupted before anything was written");
    return kInterrupted;
  } catch (const Error& error) {
    spdlog::error("{}", error.what());
  } catch (const c10::Error& error) {
    const auto message = first_line(error.what_without_backtrace());
    const bool memory = dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
                        message.find("can't allocate memory") != std::string::npos;
    if (memory) {
      spdlog::error("out of memory; a smaller --memory, fewer --samples or a shorter prompt need less ({})", message);
    } else {
      spdlog::error("libtorch failed: {}", message);
    }
  } catch (const std::bad_alloc&) {
    spdlog::error("out of memory");
  } catch (const std::exception& error) {
    spdlog::error("failed: {}", first_line(error.what()));
  }
  return kCouldNotRun;
}

void leave_program(int status) {
  std::cout.flush();
  std::fflush(nullptr);
  std::_Exit(status);
}

}  // namespace rometrace::cli
