/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.h: images: from a name a user wrote to unpacked layers that an engine can mount. Read this first.
 *
 *   digest.h       sha256 digests: as text, and computed while bytes pass
 *   reference.h    "busybox" -> docker.io/library/busybox:latest
 *   config.h       an image's configuration: entrypoint, environment, user, layers
 *   manifest.h     manifests and indexes: media types, platforms
 *   store.h        what is on disk: blobs, layers, one record an image; who uses what; how much space it takes
 *   pull.h         a registry -> the store
 *   load.h         an OCI layout or a `docker save` archive on disk -> the store
 *   unpack.h       one layer archive -> a folder that overlayfs can use; layers -> one flat folder
 *
 * Behind pull.h and load.h:
 *   hosts_toml.h   one hosts.toml file, as containerd writes them
 *   hosts.h        which servers to ask for a registry's images, in which order, and how
 *   auth.h         WWW-Authenticate challenges and tokens
 *   registry.h     the distribution API: manifests, blobs, retries
 *   job.h          a child process that fills the store, and its talk with us
 *   layer_path.h   paths inside a layer that cannot leave it
 *   layer_write.h  the entries of an archive, into such a folder
 *   flatten.c      layers, copied into one folder
 *
 * Who does what. The process that owns the store (serve) keeps the records in memory, writes them, and never touches
 * a byte of an image: each pull and each load runs in a child process (job.h) which talks to registries, verifies,
 * unpacks, and reports what it put into the store. It dies with us, a cancelled one is killed, and what it left behind
 * is removed as garbage. So a hostile manifest or archive meets a process that holds nothing else, and its memory
 * is given back.
 *
 * On disk, below the store's root (0700):
 *   blobs/sha256/HEX   verified blobs, as the registry had them: what agents ask for
 *   layers/HEX/        an unpacked layer, by the hex digits of its diff id: what overlayfs mounts
 *   images/HEX         one record an image, by its configuration's digest (record.h)
 *   ingest/            downloads and layers under way; never used by anyone but the job that made them
 *   trash/             on its way out: emptied in the background
 *   set-aside/         records that could not be read; for an operator to look at
 * Everything that a record does not name is garbage, removed at start and some minutes after a failed pull.
 */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include "image/config.h"
#include "image/digest.h"
#include "image/load.h"
#include "image/manifest.h"
#include "image/pull.h"
#include "image/reference.h"
#include "image/store.h"
#include "image/unpack.h"

#endif
