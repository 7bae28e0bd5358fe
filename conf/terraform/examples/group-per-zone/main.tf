# One Auto Scaling group a zone, and a HAProxy group a zone that prefers the servers of its own.
#
# The image (var.ami) has hsdo's package, and HAProxy with a configuration like conf/haproxy.cfg: a default and a fallback backend, each
# with a server-template of 100 slots. The servers' own launch template is yours. What this shows is how table, roles, groups and
# settings fit together.

terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 4.59"
    }
  }
}

variable "region" {
  description = "Region of everything here."
  type        = string
  default     = "eu-west-1"
}

variable "subnets" {
  description = "The subnet to use in each zone, by the zone's name."
  type        = map(string)

  validation {
    condition     = length(var.subnets) > 0 && alltrue([for zone, subnet in var.subnets : can(regex("-[0-9]+[a-z]$", zone))])
    error_message = "The keys of subnets are names of zones, such as eu-west-1a."
  }
}

variable "ami" {
  description = "Image with HAProxy and hsdo, for ARM: the machines below are Graviton."
  type        = string
}

variable "security_group_ids" {
  description = "Security groups of HAProxy and hsdo: users reach HAProxy's ports, and Prometheus alone 6789. The network's default if null."
  type        = list(string)
  default     = null
}

variable "web_launch_template_id" {
  description = "Launch template of the servers behind HAProxy."
  type        = string
}

provider "aws" {
  region = var.region
}

module "hsdo" {
  source = "../.."

  table_name    = "web"
  name_prefix   = "web-hsdo"
  role_services = ["ec2"]
}

locals {
  # web-eu-west-1a and so on.
  groups = { for zone in keys(var.subnets) : zone => "web-${zone}" }

  common = {
    DYNAMODB_TABLE_NAME               = module.hsdo.table_name
    AWS_DEFAULT_REGION                = var.region
    HAPROXY_BACKEND_SERVERS_LIST_SIZE = 100
  }

  server = merge(local.common, {
    SERVER_MODE      = "aws"
    SERVER_ASG_NAMES = values(local.groups)
  })

  # The HAProxy of a zone has that zone's group in its default backend, and all others in the fallback.
  client = {
    for zone, group in local.groups : zone => merge(local.common, {
      CLIENT_HAPROXY_BACKEND_LIST               = { http-back = { baseName = "mywebapp", serverPort = 80 } }
      CLIENT_DEDICATED_ASG                      = true
      CLIENT_ASG_NAMES                          = [group]
      CLIENT_HAPROXY_FALLBACK_BACKEND_NAME      = "http-fallback"
      CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME = "fallback"
    })
  }
}

resource "aws_autoscaling_group" "web" {
  for_each = local.groups

  name                = each.value
  min_size            = 1
  max_size            = 30
  vpc_zone_identifier = [var.subnets[each.key]]

  launch_template {
    id      = var.web_launch_template_id
    version = "$Latest"
  }
}

# Two servers: one leads, the other stands by. They may run anywhere that reaches AWS.
resource "aws_launch_template" "server" {
  name_prefix   = "web-hsdo-server-"
  image_id      = var.ami
  instance_type = "t4g.nano"
  user_data     = base64encode(local.user_data.server)

  iam_instance_profile {
    name = module.hsdo.instance_profile_names["server"]
  }

  vpc_security_group_ids = var.security_group_ids

  metadata_options {
    http_tokens = "required"
  }
}

resource "aws_autoscaling_group" "server" {
  name                = "web-hsdo-server"
  min_size            = 2
  max_size            = 2
  vpc_zone_identifier = values(var.subnets)

  launch_template {
    id      = aws_launch_template.server.id
    version = aws_launch_template.server.latest_version
  }

  # A new setting reaches the machines one by one.
  instance_refresh {
    strategy = "Rolling"
  }

  # Rights and tables come before the machines, and go after them.
  depends_on = [module.hsdo]
}

resource "aws_launch_template" "haproxy" {
  for_each = local.client

  name_prefix   = "web-haproxy-${each.key}-"
  image_id      = var.ami
  instance_type = "c7g.large"
  user_data     = base64encode(local.user_data[each.key])

  iam_instance_profile {
    name = module.hsdo.instance_profile_names["client"]
  }

  vpc_security_group_ids = var.security_group_ids

  metadata_options {
    http_tokens = "required"
  }
}

resource "aws_autoscaling_group" "haproxy" {
  for_each = local.client

  name                = "web-haproxy-${each.key}"
  min_size            = 2
  max_size            = 10
  vpc_zone_identifier = [var.subnets[each.key]]

  launch_template {
    id      = aws_launch_template.haproxy[each.key].id
    version = aws_launch_template.haproxy[each.key].latest_version
  }

  # A new setting reaches the machines one by one.
  instance_refresh {
    strategy = "Rolling"
  }

  # Rights and tables come before the machines, and go after them.
  depends_on = [module.hsdo]
}

locals {
  # The package's units stay off until somebody turns them on.
  user_data = {
    for name, settings in merge({ server = local.server }, local.client) : name => "#cloud-config\n${yamlencode({
      write_files = [{ path = "/etc/hsdo/env.yaml", content = yamlencode(settings) }]
      runcmd      = [["systemctl", "enable", "--now", name == "server" ? "hsdo-server" : "hsdo-client"]]
    })}"
  }
}

output "user_data" {
  description = "What machines are told at start, by name: server, and each zone's HAProxy."
  value       = local.user_data
}
